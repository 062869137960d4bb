"""A process of its own: `python -m benchbox.engine.isolation FD`, which is told through the pipe what it holds."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from benchbox.contract import overheard
from benchbox.engine.isolation import wire
from benchbox.engine.isolation.server import told


def serve(pipe: Connection) -> None:
    """Answer until the other side is gone: as the teller of what plug-ins declare, or as the cell of a defence."""
    order = wire.receive(pipe).words
    if "tell" in order:
        from benchbox.engine.isolation.teller import Teller

        teller = Teller(Path(order["tell"]), pipe)
        wire.send(pipe, {})
        teller.serve()
    from benchbox.engine.isolation.cell import Cell
    from benchbox.engine.isolation.order import Order

    with overheard.listening() as heard:
        cell = Cell(Order.from_dict(order), heard, pipe)
        wire.send(pipe, cell.facts())
        cell.serve()


def main() -> None:
    """Serve on the file descriptor that is named."""
    pipe = Connection(int(sys.argv[1]))
    sys.argv[1:] = []
    try:
        serve(pipe)
    except (EOFError, OSError):
        os._exit(0)
    except Exception as error:  # before there is a defence
        said = told(error)
        wire.send(pipe, {**said, "kind": "request" if said["kind"] == "request" else "defence"})


if __name__ == "__main__":
    main()
