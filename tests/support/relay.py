"""A TCP relay in threads of its own, whose connections a test cuts or stalls."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class Relay:
    """Passes bytes on to a port of this machine.

    `cut()` closes what is open and refuses what is new, until `heal()`. `stall()` leaves what is open open and passes
    nothing on any more, as when a host vanished or a firewall forgot the connection; what is new goes through.
    """

    def __init__(self, port: int) -> None:
        self.accepted = 0
        """How many connections were ever made to it."""
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._stalled: set[socket.socket] = set()
        self._refusing = False
        self._closed = False
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Relay:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def cut(self) -> None:
        with self._lock:
            self._refusing = True
            for pair in self._pairs:
                for end in pair:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        with self._lock:
            self._stalled = {end for pair in self._pairs for end in pair}

    def heal(self) -> None:
        self._refusing = False

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                server = None if self._refusing else socket.create_connection(self._to)
            except OSError:
                server = None
            if server is None:
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
            self._start(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        back = self._start(self._pass_on, server, client)
        self._pass_on(client, server)
        back.join()
        with self._lock, client, server:
            with contextlib.suppress(ValueError):
                self._pairs.remove((client, server))

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                while one in self._stalled and not self._closed:
                    time.sleep(0.01)
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
