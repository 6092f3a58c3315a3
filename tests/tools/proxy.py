"""A proxy before a PostgreSQL server that cuts, delays, loses and repeats what goes through it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Fault:
    """What happens to the first session that sends something from now on, once."""

    #: After so many bytes from the client; None: after the whole request, when the server begins to answer.
    after: int | None
    #: So many bytes of the answer come through; None: what the client sends is cut, and not the answer.
    answered: int | None = None
    #: What the client has sent comes to the server only when `Proxy.deliver` is called.
    is_late: bool = False


class Session:
    """One connection of a client, and ours to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server = socket.create_connection(("127.0.0.1", proxy.port_of_server))
        self.sent = b""  #: since the last answer
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self.client, self.server], [], [])
                if self.server in ready and not self._from_server():
                    break
                if self.client in ready and not self._from_client():
                    break
        except (OSError, ValueError):
            pass  # cut, by the end of the test
        self.close()

    def _from_client(self) -> bool:
        data = self.client.recv(1 << 16)
        if not data:
            return False
        self.sent += data
        self.proxy.request = self.sent
        fault = self.proxy.fault
        if fault is None or fault.after is None:
            self.server.sendall(data)
            return True
        if len(self.sent) < fault.after:
            if not fault.is_late:
                self.server.sendall(data)
            return True
        self.proxy.fault = None
        if fault.is_late:
            self.proxy.late.append((self.server, self.sent))
            self.server = socket.socket()  # the late one stays open
            self.proxy.has_late.set()
            return False
        surplus = len(self.sent) - fault.after
        self.server.sendall(data[: len(data) - surplus])
        return False

    def _from_server(self) -> bool:
        data = self.server.recv(1 << 16)
        if not data:
            return False
        fault = self.proxy.fault
        if fault is not None and fault.answered is not None and self.sent:
            self.proxy.fault = None
            self.client.sendall(data[: fault.answered])
            self.proxy.answer = data
            return False
        self.proxy.answer = data
        self.sent = b""
        self.client.sendall(data)
        return True

    def close(self) -> None:
        """Cut both connections."""
        for each in (self.client, self.server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Proxy:
    """Listens before the server at *port_of_server*."""

    def __init__(self, port_of_server: int) -> None:
        self.port_of_server = port_of_server
        self.fault: Fault | None = None
        self.request = b""  #: the last one
        self.answer = b""  #: the last one
        self.late: list[tuple[socket.socket, bytes]] = []
        self.has_late = threading.Event()
        self.sessions: list[Session] = []
        self.is_up = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_up:
                    self.sessions.append(Session(self, client))
                else:
                    client.close()

    def deliver(self) -> None:
        """Let what was late come to the server, and wait until the server has answered, or has ended the session."""
        for server, data in self.late:
            with contextlib.suppress(OSError):
                server.settimeout(10)
                server.sendall(data)
                server.recv(1 << 16)
        for server, _ in self.late:
            server.close()
        self.late.clear()

    def cut(self) -> None:
        """Cut all sessions."""
        for session in self.sessions:
            session.close()
        self.sessions.clear()

    def close(self) -> None:
        """The end."""
        self._listener.close()
        self.cut()
        for server, _ in self.late:
            server.close()


def lengths(proxy: Proxy, change: Callable[[], object]) -> tuple[int, int]:
    """How many bytes *change*, which is one round trip, sends, and its answer has."""
    change()
    return len(proxy.request), len(proxy.answer)
