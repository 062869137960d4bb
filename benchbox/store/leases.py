"""Leases: who is at work on what, so that processes sharing a store share the work.

A lease is a row with an end. Its holder moves the end on while it lives; nobody else touches the row before that
end, unless the holder was a process of this machine and is no longer there.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import BindParameter, Connection, Engine, Row, bindparam, delete, func, select, update

from benchbox.errors import StoreError
from benchbox.store.database import insert_missing, transaction
from benchbox.store.schema import LEASE

#: Seconds a lease outlives its holder's last sign of life.
SECONDS = 60.0
#: Signs of life within that time: one that fails, or waits for a writer, does not cost the lease.
BEATS = 4
#: Seconds between two looks at a lease that is waited for.
PAUSE = 0.5

# Built once: building a statement takes longer than running it.
_NAMES: BindParameter[list[str]] = bindparam("names", expanding=True)
_LOOK = select(LEASE).where(LEASE.c.name.in_(_NAMES)).order_by(LEASE.c.name)
_GIVE_BACK = delete(LEASE).where(LEASE.c.name.in_(_NAMES), LEASE.c.owner == bindparam("holder"))
_RENEW = (
    update(LEASE)
    .where(LEASE.c.name == bindparam("lease"), LEASE.c.owner == bindparam("holder"))
    .values(expires=bindparam("until"))
)


class Leases:
    """What one open store holds. Safe to use from several threads; a name is held once, by one of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._owner = secrets.token_hex(16)
        self._held: dict[str, float] = {}  # name -> seconds it may go without a sign of life
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._heart: threading.Thread | None = None

    def take(self, names: Iterable[str], seconds: float) -> set[str]:
        """Take those of some leases that are free; from now on they are kept alive.

        Args:
            names: Of the leases.
            seconds: How long each outlives its holder's last sign of life.
        """
        with self.taking(names, seconds) as take, transaction(self._engine, write=True) as connection:
            return take(connection)

    @contextmanager
    def taking(self, names: Iterable[str], seconds: float) -> Iterator[Callable[[Connection], set[str]]]:
        """The same in a transaction of the block, on whose connection what it is given takes them."""
        with self._lock:
            wanted = {name for name in names if name not in self._held}
            # Before they are ours, so that no other thread asks for them meanwhile.
            self._held |= dict.fromkeys(wanted, seconds)
        taken: set[str] = set()

        def take(connection: Connection) -> set[str]:
            taken.update(self._take(connection, sorted(wanted), seconds) if wanted else ())
            return set(taken)

        try:
            yield take
        except BaseException:
            taken.clear()  # nothing of the transaction holds
            raise
        finally:
            with self._lock:
                for name in wanted - taken:
                    self._held.pop(name, None)
                self._keep_alive(seconds)

    def release(self, *names: str) -> None:
        """Give leases back; those that are not held are left alone."""
        mine = self.forget(names)
        if mine:
            with transaction(self._engine, write=True) as connection:
                self.give_back(connection, mine)

    def give_back(self, connection: Connection, names: Sequence[str]) -> None:
        """Give leases back as part of a transaction; they are to be forgotten when it is committed."""
        if names:
            connection.execute(_GIVE_BACK, {"names": list(names), "holder": self._owner})

    def forget(self, names: Iterable[str]) -> list[str]:
        """Keep leases alive no longer; gives those that were held."""
        with self._lock:
            return [name for name in names if self._held.pop(name, None) is not None]

    def close(self) -> None:
        """Give everything back and stop."""
        with suppress(StoreError):  # what cannot be given back ends by itself
            self.release(*self._held)
        self._changed.set()

    def elsewhere(self, names: Iterable[str]) -> set[str]:
        """Those of the names that somebody else holds."""
        return {row.name for row in self._living(names) if row.owner != self._owner}

    def alive(self, names: Iterable[str]) -> set[str]:
        """Those of the names that anybody holds."""
        return {row.name for row in self._living(names)}

    def _living(self, names: Iterable[str]) -> list[Row[Any]]:
        with transaction(self._engine, write=False) as connection:
            rows = connection.execute(_LOOK, {"names": list(names)}).all()
            clock = _clock(connection)
        return [row for row in rows if not _is_free(row, clock)]

    def _take(self, connection: Connection, names: Sequence[str], seconds: float) -> set[str]:
        clock = _clock(connection)
        mine = {"owner": self._owner, "place": _place(), "pid": os.getpid(), "expires": clock + seconds}
        added = connection.execute(insert_missing(connection, LEASE), [{"name": name, **mine} for name in names])
        if added.rowcount == len(names):
            return set(names)  # nobody had one
        taken = set()
        for row in connection.execute(_LOOK.with_for_update(), {"names": list(names)}).all():
            if row.owner == self._owner:
                taken.add(row.name)
            elif _is_free(row, clock):
                connection.execute(update(LEASE).where(LEASE.c.name == row.name).values(mine))
                taken.add(row.name)
        return taken

    def _keep_alive(self, seconds: float) -> None:
        """See to it that somebody beats often enough; the lock is held."""
        if self._held and self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="benchbox leases", daemon=True)
            self._heart.start()
        elif seconds < SECONDS:
            self._changed.set()  # it sleeps longer than that

    def _beat(self) -> None:
        last = time.monotonic()
        while True:
            with self._lock:
                held = dict(self._held)
                if not held:
                    self._heart = None
                    return
            self._changed.wait(max(0.0, last + min(held.values()) / BEATS - time.monotonic()))
            self._changed.clear()
            if time.monotonic() >= last + min(held.values()) / BEATS:
                self._renew(held)
                last = time.monotonic()

    def _renew(self, held: dict[str, float]) -> None:
        # A store that is busy or out of reach is tried again at the next beat, before the lease ends.
        with suppress(StoreError), transaction(self._engine, write=True) as connection:
            clock = _clock(connection)
            renewed = [
                {"lease": name, "until": clock + seconds, "holder": self._owner} for name, seconds in held.items()
            ]
            connection.execute(_RENEW, renewed)


def _is_free(row: Row[Any], clock: float) -> bool:
    return row.expires <= clock or (row.place == _place() and not _is_alive(row.pid))


def _clock(connection: Connection) -> float:
    """Seconds since 1970: of the database server, where there is one, since hosts disagree about the time."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)
    return time.time()


@cache
def _place() -> str:
    """Where process numbers mean the same: containers share a host's name, and have numbers of their own."""
    parts = [socket.gethostname()]
    if sys.platform == "linux":
        try:
            parts += [
                Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
                os.readlink("/proc/self/ns/pid"),
            ]
        except OSError:
            parts.append(secrets.token_hex(8))  # unknown: nobody's death is concluded from a number
    return " ".join(parts)[:255]


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere "signal 0" ends the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state != "Z"  # killed, and its parent has not looked yet
