"""Targets such as `listening:///127.0.0.1:50051,127.0.0.1:50052`: those of the addresses that accept connections."""

import anyio

from grpclb_core import Address, Config, Endpoint, Resolution, ResolutionError, TargetError
from grpclb_core.resolve import Sink, Target


def make_resolver(target: Target, config: Config) -> "Listening":
    items = [item.rpartition(":") for item in target.rest.removeprefix("///").split(",")]
    if not all(port.isdigit() for _, _, port in items):
        raise TargetError("write listening:///ip:port,ip:port")
    return Listening([Address(host, int(port)) for host, _, port in items])


class Listening:
    authority = None  # each endpoint goes by its own address

    def __init__(self, addresses: list[Address], every_s: float = 0.5) -> None:
        self.addresses, self.every_s = addresses, every_s

    def refresh(self) -> None:
        """A connection broke; half a second is soon enough to look again."""

    async def run(self, sink: Sink) -> None:
        pushed = None
        while True:
            found = [address for address in self.addresses if await accepts(address)]
            if found and found != pushed:
                sink.update(Resolution(tuple(map(Endpoint, found))))
            elif not found and pushed != found:
                sink.fail(ResolutionError("none of the addresses accepts connections; start a server on one"))
            pushed = found
            await anyio.sleep(self.every_s)


async def accepts(address: Address) -> bool:
    try:
        with anyio.fail_after(1):
            await (await anyio.connect_tcp(address.host, address.port)).aclose()
    except (OSError, TimeoutError):
        return False
    return True
