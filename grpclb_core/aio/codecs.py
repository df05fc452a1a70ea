"""How an interceptor learns to serialize: grpc.aio does not tell it.

`find_codec` asks, in this order, the codecs the user registered, the protobuf descriptor pool, and what grpcio
happens to keep in the continuation. The last is private to grpcio and may go with any release;
tests/aio/test_codecs.py says whether the installed one still has it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import CodecError, ConfigError
from .method import Deserializer, Serializer


class Codec(NamedTuple):
    """How one method's messages become bytes and back; None leaves bytes as they are."""

    serialize: Serializer | None = None
    deserialize: Deserializer | None = None


CodecMapping = Mapping[str, "Codec | tuple[Serializer | None, Deserializer | None]"]


def parse_codecs(raw: CodecMapping | None) -> dict[str, Codec]:
    """Turn registered codecs into a table by path: of a method (`/pkg.Service/Method`) or a service (`/pkg.Service/`).

    Raises:
        ConfigError: a path is malformed, or a serializer is no callable; all faults together.
    """
    problems: list[str] = []
    table: dict[str, Codec] = {}
    for path, pair in (raw or {}).items():
        if not isinstance(path, str) or not path.startswith("/") or path.count("/") != 2:
            problems.append(f"codecs: {path!r} is no path; use '/package.Service/Method' or '/package.Service/'")
        elif not isinstance(pair, tuple) or len(pair) != 2:
            problems.append(f"codecs: {path} needs a pair (serialize, deserialize), got {pair!r}")
        elif not all(part is None or callable(part) for part in pair):
            problems.append(f"codecs: {path} has a part that is neither callable nor None: {pair!r}")
        else:
            table[path] = Codec(*pair)
    if problems:
        raise ConfigError(problems)
    return table


def find_codec(registered: Mapping[str, Codec], path: str, continuation: Callable[..., Any]) -> Codec:
    """Return the codec of the method at `path`.

    Raises:
        CodecError: nobody knows it.
    """
    codec = (
        registered.get(path)
        or registered.get(path[: path.rfind("/") + 1])
        or codec_from_pool(path)
        or codec_from_continuation(continuation)
    )
    if codec is None:
        raise CodecError(
            f"{path}: no serializer is known; it is in no loaded protobuf descriptor. "
            f"Pass balancer.interceptors(codecs={{{path!r}: (serialize, deserialize)}}), or use lb.insecure_channel()"
        )
    return codec


def codec_from_pool(path: str) -> Codec | None:
    """Return the codec that the protobuf descriptors loaded in this process give a method."""
    try:
        from google.protobuf import descriptor_pool, message_factory
    except ImportError:
        return None
    service, _, name = path.lstrip("/").rpartition("/")
    try:
        method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return None
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    return Codec(request.SerializeToString, response.FromString)


def codec_from_continuation(continuation: Callable[..., Any]) -> Codec | None:
    """Return the codec that grpcio bound into a continuation: the third and fourth argument of a partial."""
    if not isinstance(continuation, functools.partial) or len(continuation.args) != 4:
        return None
    serialize, deserialize = continuation.args[2:]
    if all(part is None or callable(part) for part in (serialize, deserialize)):
        return Codec(serialize, deserialize)
    return None


def interceptors_after(continuation: Callable[..., Any]) -> int:
    """Return how many interceptors grpcio would still run, as far as the continuation shows."""
    if isinstance(continuation, functools.partial) and continuation.args and isinstance(continuation.args[0], list):
        return len(continuation.args[0])
    return 0
