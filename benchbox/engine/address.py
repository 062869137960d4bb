"""Whether somebody answers at the address of a Ray cluster: Ray itself tries for minutes to reach a dead one."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from benchbox.errors import RequestError, uninstalled

T = TypeVar("T")

#: Seconds until a host has to answer, and until the cluster has to.
HOST, CLUSTER = 5.0, 15.0
#: What stands for an address that Ray finds by itself.
NAMED = ("auto", "local")


def check(address: str) -> None:
    """Refuse an address where nothing listens; needs neither Ray nor torch.

    Raises:
        RequestError: Ray is not installed, the address is none, or nobody answers there.
    """
    if importlib.util.find_spec("ray") is None:
        raise uninstalled("--ray needs Ray", "ray")
    if address in NAMED:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise RequestError(f"--ray {address!r} is no address; write auto, local or HOST:PORT, say 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), HOST).close()
    except (OSError, UnicodeError) as error:
        raise absent(address, getattr(error, "strerror", None) or str(error) or type(error).__name__) from None


def patiently(connect: Callable[[], T], address: str) -> T:
    """Connect to a cluster, and wait no longer than `CLUSTER` seconds for it.

    Raises:
        RequestError: It does not answer, though something listens there.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def attempt() -> None:
        try:
            found.append(connect())
        except BaseException as error:  # raised again where it is waited for
            failed.append(error)

    thread = threading.Thread(target=attempt, name="benchbox ray", daemon=True)
    thread.start()
    thread.join(CLUSTER)
    if failed:
        raise failed[0]
    if not found:
        raise absent(address, f"no answer within {CLUSTER:.0f} s")
    return found[0]


def absent(address: str, reason: str) -> RequestError:
    """That there is no cluster at an address."""
    return RequestError(f"no Ray cluster at {address!r} ({reason}); start one with `ray start --head`")
