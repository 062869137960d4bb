"""A cluster that is not there is one line, and soon."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from commands import Said, refusal

from benchbox import RequestError
from benchbox.engine import address


@pytest.fixture(autouse=True)
def ray_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address.importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize("given", ["foo", "host:", ":6379", "host:port", "host:0", "host:65536", "", "ray://"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(RequestError, match="is no address; write auto, local or HOST:PORT"):
        address.check(given)


def test_where_nobody_listens_there_is_no_cluster() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        for given in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            with pytest.raises(
                RequestError, match=r"no Ray cluster at '.*' \(Connection refused\); start one with"
            ):
                address.check(given)
        bound.listen()
        address.check(f"127.0.0.1:{port}")
    for named in address.NAMED:
        address.check(named)


def test_one_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "CLUSTER", 0.05)
    never, start = threading.Event(), time.monotonic()
    with pytest.raises(RequestError, match="no answer within"):
        address.patiently(never.wait, "host:1")
    assert time.monotonic() - start < 5
    never.set()
    monkeypatch.setattr(address, "CLUSTER", 60.0)
    assert address.patiently(lambda: 3, "host:1") == 3
    with pytest.raises(ZeroDivisionError):
        address.patiently(lambda: 1 // 0, "host:1")


def test_the_command_says_so_before_anything_is_loaded(said: Said) -> None:
    assert "is no address" in refusal(said("run", "-d", "none", "--ray", "somewhere"))
