"""Hosts on one machine: each is a network namespace without a name, and a switch connects them. Needs root.

A namespace is gone when the last process in it is: a test that is killed leaves none.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: Of https://www.rfc-editor.org/rfc/rfc5737, for documentation: no host has it.
_NETWORK = "192.0.2"


class Unsupported(Exception):
    """This machine has no namespaces for us: the message says why."""


class Host:
    """A namespace; the process that keeps it ends with its standard input."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._keeper.stdout is not None
        self.address = ""
        self.is_up = bool(self._keeper.stdout.readline())

    @property
    def pid(self) -> int:
        """A process in it."""
        return self._keeper.pid

    def ip(self, command: str) -> None:
        """Run ``ip COMMAND`` in it."""
        command = f"nsenter -t {self.pid} -n ip {command}"
        done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
        if done.returncode:
            raise Unsupported(f"{command}: {done.stderr.strip()}")

    def close(self) -> None:
        """The namespace may go."""
        self._keeper.communicate()


def enter(pid: int) -> None:
    """Move this thread into the network of process *pid*."""
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


class Network:
    """A switch with *number* hosts."""

    def __init__(self, number: int, stack: contextlib.ExitStack) -> None:
        self._switch = Host()
        stack.callback(self._switch.close)
        self.hosts = [Host() for _ in range(number)]
        for host in self.hosts:
            stack.callback(host.close)
        if not all(each.is_up for each in (self._switch, *self.hosts)):
            raise Unsupported("unshare --net was refused")
        self._switch.ip("link add switch type bridge")
        self._switch.ip("link set switch up")
        for number, host in enumerate(self.hosts, 1):
            host.address = f"{_NETWORK}.{number}"
            self._switch.ip(f"link add port{number} type veth peer name eth0 netns {host.pid}")
            self._switch.ip(f"link set port{number} master switch up")
            host.ip(f"address add {host.address}/24 dev eth0")
            host.ip("link set eth0 up")
            host.ip("link set lo up")

    def cut(self, host: Host) -> None:
        """Pull the cable of *host*: nobody is told."""
        self._switch.ip(f"link set port{self.hosts.index(host) + 1} down")

    def heal(self, host: Host) -> None:
        """Put it back."""
        self._switch.ip(f"link set port{self.hosts.index(host) + 1} up")


@contextlib.contextmanager
def network(number: int) -> Iterator[Network]:
    """A network of *number* hosts. Raises Unsupported."""
    if os.getuid() != 0:
        raise Unsupported("only root may make network namespaces")
    for program in ("ip", "unshare", "nsenter"):
        if not shutil.which(program):
            raise Unsupported(f"{program} is not installed")
    with contextlib.ExitStack() as stack:
        yield Network(number, stack)
