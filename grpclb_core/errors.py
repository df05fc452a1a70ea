"""What can go wrong, drawn as a tree.

    GrpclbError
    +-- ConfigError (ValueError)       an option, policy or weight is not acceptable
    |   +-- TargetError                the target string cannot be understood
    +-- ResolutionError                a lookup failed; the last good set stays in use
    +-- RegistrationError              a server could not be put into a registry
    +-- IdentityError                  certificates cannot be used, or a server is not who it should be
    +-- CodecError                     an interceptor cannot tell how to serialize a method
    +-- WrongEventLoopError            a channel was used from a loop other than its own
    +-- NativeModuleError (ImportError) the compiled core is missing or does not load

Two mistakes keep the exception that grpc.aio defines for them, so that code written for a plain channel
still works: use after close (`grpc.aio.UsageError`) and a negative grace (`ValueError`). A call that finds
no endpoint fails as a call does, with `grpc.aio.AioRpcError`.

Every message says what was wrong, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence


class GrpclbError(Exception):
    """Base of every error this package defines."""


class ConfigError(GrpclbError, ValueError):
    """Raised when options cannot be used; `problems` holds one line for each fault found."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems))


class TargetError(ConfigError):
    """Raised when a target string has an unknown scheme or a part that cannot be parsed."""


class ResolutionError(GrpclbError):
    """Raised by a resolver when a lookup failed, with the source and the reason."""


class RegistrationError(GrpclbError):
    """Raised when a server could not be registered in time, with the registry and the reason."""


class IdentityError(GrpclbError):
    """Raised when certificate files cannot be used, or a server shows a certificate that is not what was asked for."""


class CodecError(GrpclbError):
    """Raised at a call when an interceptor finds no serializer for its method."""


class WrongEventLoopError(GrpclbError, RuntimeError):
    """Raised when a channel is used outside a running event loop, or from a second one."""


class NativeModuleError(GrpclbError, ImportError):
    """Raised on import when the compiled core is missing; there is no slower twin to fall back to."""
