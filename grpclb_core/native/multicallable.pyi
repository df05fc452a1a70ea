import asyncio
from collections.abc import Callable
from typing import Any, final

import grpc
import grpc.aio
from typing_extensions import disjoint_base

from .picker import Picker
from .slot import Slot
from .ticket import Ticket

@final
class CurrentPicker:
    def __init__(self, lost: Callable[[Slot], None]) -> None: ...
    picker: Picker | None
    sheds: bool
    @property
    def loop(self) -> asyncio.AbstractEventLoop | None: ...
    @loop.setter
    def loop(self, loop: asyncio.AbstractEventLoop | None) -> None: ...

@disjoint_base
class MultiCallable:
    def __init__(
        self,
        current: CurrentPicker,
        bind: Callable[[Slot], tuple[Any, Callable[[], grpc.ChannelConnectivity]]],
        otherwise: Callable[..., Any],
        interceptors: list[grpc.aio.ClientInterceptor],
        timed: bool,
    ) -> None: ...
    def start(
        self,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any: ...
    def start_on(
        self,
        ticket: Ticket,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any: ...
    def forget(self, slot: Slot) -> None: ...

class UnaryRequest(MultiCallable):
    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any: ...

class StreamRequest(MultiCallable):
    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any: ...

@final
class UnaryUnaryMultiCallable(UnaryRequest): ...

@final
class UnaryStreamMultiCallable(UnaryRequest): ...

@final
class StreamUnaryMultiCallable(StreamRequest): ...

@final
class StreamStreamMultiCallable(StreamRequest): ...
