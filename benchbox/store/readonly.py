"""Stores that can be read and not written: on a disk of others, on a DVD, in a snapshot."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL


def file_of(url: URL) -> Path | None:
    """The SQLite file of a URL, if it is there and cannot be written."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    file = Path(name)
    # SQLite writes beside the file too.
    return file if file.is_file() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)) else None


def has_log(file: Path) -> bool:
    """Whether commits lie beside the file that are not in it yet."""
    log = file.with_name(f"{file.name}-wal")
    return log.exists() and log.stat().st_size > 0


def url_of(file: Path) -> URL:
    """The URL that reads a file as it is, without locks."""
    return URL.create("sqlite", database=f"file:{quote(str(file))}", query={"immutable": "1", "uri": "true"})


def copy_of(file: Path) -> Path:
    """A copy, with the commits that lie beside the file, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="benchbox-store-"))
    for part in (file, file.with_name(f"{file.name}-wal")):
        if part.exists():
            shutil.copyfile(part, folder / part.name)
    return folder / file.name
