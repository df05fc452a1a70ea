"""Which endpoint, now? The compiled fast path: slots, pickers, tickets and the multi-callables of grpc.aio.

This is the only place that imports the extension modules. There is no slower twin to fall back to: a core that is
missing is an error here, at import, and not a surprise in production. Read `slot.pxd` first, then `picker.pyx`; both
ship with the package, so that another Cython extension can cimport them.
"""

from ..errors import NativeModuleError

try:
    from .clock import clock_source, now_ns
    from .multicallable import (
        CurrentPicker,
        MultiCallable,
        StreamStreamMultiCallable,
        StreamUnaryMultiCallable,
        UnaryStreamMultiCallable,
        UnaryUnaryMultiCallable,
    )
    from .p2c_ewma import P2cEwmaPicker
    from .picker import LeastRequestPicker, Picker, RandomPicker, RoundRobinPicker
    from .prequal import PrequalPicker
    from .ring import RingHashPicker
    from .slot import Slot
    from .stride import StridePicker
    from .ticket import Ticket
    from .view import View
except ImportError as error:
    raise NativeModuleError(
        f"the compiled core of grpclb_core does not load: {error}. Install a wheel built for this interpreter, or "
        "build from source with a C11 compiler: pip install --no-binary grpclb-core grpclb-core"
    ) from error

__all__ = [
    "CurrentPicker",
    "LeastRequestPicker",
    "MultiCallable",
    "P2cEwmaPicker",
    "Picker",
    "PrequalPicker",
    "RandomPicker",
    "RingHashPicker",
    "RoundRobinPicker",
    "Slot",
    "StreamStreamMultiCallable",
    "StreamUnaryMultiCallable",
    "StridePicker",
    "Ticket",
    "UnaryStreamMultiCallable",
    "UnaryUnaryMultiCallable",
    "View",
    "clock_source",
    "now_ns",
]
