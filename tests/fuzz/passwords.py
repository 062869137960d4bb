"""Places where a database password could come out: command lines, what they print, and what they leave on disk.

python tests/fuzz/passwords.py
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
from pathlib import Path

import bad_plugins
import numpy as np

from benchbox.cli import main

WORD = "hunter2"
#: The ways in which a URL holds it, well and badly formed; nobody listens there.
URLS = [
    f"postgresql://ann:{WORD}@127.0.0.1:1/x", f"postgresql+psycopg://ann:{WORD}@127.0.0.1:1/x?sslmode=disable",
    f"postgresql://127.0.0.1:1/x?user=ann&password={WORD}", f"postgresql://ann:{WORD}@[/x", f"nope://ann:{WORD}@host/x",
    f"postgresql://ann:{WORD}@127.0.0.1:port/x", f"postgresql://ann%3a{WORD}%40127.0.0.1/x",
]  # fmt: skip
RUN = ["-d", "good.py:Good", "--set", "good.py:Good.epochs=1", "--dataset", "tiny"]
#: Commands that open a store; its URL comes last.
OPENING = [
    ["report", "--store"], ["list", "runs", "--store"], ["list", "cells", "--store"],
    ["diff", "1", "1", "--store"],
    ["diff", "1", "1", "--store", "s.sqlite", "--other-store"], ["compare", "a", "b", "--store"],
    ["publish", "x", "--store"], ["figures", "--store"], ["export", "00", "--store"],
    ["show", "0000000", "--store"], ["doctor", "--store"], ["remove", "runs", "1", "--yes", "--store"],
    ["reproduce", "x.json", "--row", "a", "--store"],
    ["track", "mlflow", "--store"], ["run", "-a", "fgsm", "-q", *RUN, "--store"],
    ["import-adversarials", "adv.npz", "-d", "none", "--dataset", "tiny", "--store"],
]  # fmt: skip
#: What is stored with a password among its words, and the commands that show it again.
RECORDED = ["run", "-a", "fgsm", "-q", *RUN, "--store", "s.sqlite", "--access", "white-box"]
SHOWING = [
    ["report", "--format", format, "--output", f"r.{format}"]
    for format in ("json", "csv", "html", "latex", "markdown")
] + [["publish", "p.json"], ["list", "runs"], ["doctor"]]


def run() -> tuple[int, list[str]]:
    """Try every place; how many there were, and those where the password came out or a traceback did."""
    leaks, places = [], 0
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        _lay_out(Path(name))
        for words in OPENING:
            for url in URLS[: 7 if words[0] in ("report", "doctor") else 2]:
                places += 1
                if WORD in (said := _said([*words, url])) or "Traceback" in said:
                    leaks.append(" ".join([*words, url]))
        # Recorded with the command line, as somebody's own words hold it.
        argv, sys.argv = (
            sys.argv,
            ["benchbox", *RECORDED, f"--uri=postgresql://ann:{WORD}@host/x", f"password={WORD}"],
        )
        _said(RECORDED)
        sys.argv = argv
        for words in SHOWING:
            places += 1
            if WORD in _said([*words, "--store", "s.sqlite"]):
                leaks.append(" ".join(words))
        for file in sorted(Path(name).rglob("*")):
            if file.is_file():
                places += 1
                if WORD.encode() in file.read_bytes():
                    leaks.append(f"the file {file.relative_to(name)}")
    return places, leaks


def _lay_out(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 28, 28)).astype(np.uint8), np.arange(60) % 10
    (folder / "good.py").write_text(bad_plugins.GOOD)
    np.savez(folder / "tiny.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    np.savez(folder / "adv.npz", x_adv=x[40:, None])
    os.environ["BENCHBOX_DATA"] = str(folder)


def _said(words: list[str]) -> str:
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(words)
    except BaseException:
        return f"Traceback {traceback.format_exc()}"
    return out.getvalue() + err.getvalue()


if __name__ == "__main__":
    count, found = run()
    sys.stdout.write("".join(f"{leak}\n" for leak in found))
    sys.stdout.write(f"{count} places, {len(found)} leaks\n")
