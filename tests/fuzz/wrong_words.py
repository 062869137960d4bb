"""Some three hundred wrong command lines: each is refused in one line, with status 2.

python tests/fuzz/wrong_words.py        # all of them; the tests take every seventh
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchbox.cli import main

RUN = ["run", "-d", "none", "--dataset", "tiny", "-a", "fgsm", "-q"]
TRAIN = ["train", "-d", "none", "--dataset", "tiny", "-q"]
AUDIT = ["audit", "none", "--dataset", "tiny", "-q", "-y"]
IMPORT = ["import-adversarials", "adv.npz", "-d", "none", "--dataset", "tiny"]
REPORT, COMPARE = ["report"], ["compare", "none", "pgd-at"]
FIGURES, DOCTOR, DIFF = ["figures"], ["doctor"], ["diff", "1", "1"]

NUMBERS = ["x", "-1", "0", "1.5", "nan", "99999999999999999999999"]
SEEDS = ["x", "1.5", "-1", NUMBERS[-1]]
#: As a variable of the shell that is not set leaves it.
NOTHING = ["", ",", " "]
TAKES_NOTHING = {
    *("--format", "--origin", "--epsilon", "--attacks", "--dataset", "-d", "--access", "--seeds", "--samples"),
    *("--store", "--against"),
}
RADII = ["x", "-0.1", "nan", "inf", "1/0", "8", "//", "1e999", "0.1,x", "0x1"]
NORMS = ["l1", "l0", "linff", "2-norm"]
SETTINGS = [
    *("x", "none.epochs", "none.epochs=x", "none.epochs=-1", "none.epochs=nan", "none.epochs=true", "none.nope=1"),
    *("nope.x=1", "fgsm.nope=1", "=", ".=", "none.optimizer=adamm", "none.learning_rate=inf", "none.base=pssr"),
    *("none.weights=x", "pssr.alpha=1", "none.network=nope", "none.batch_size=0", "none.augment=perhaps"),
]
STORES = [
    "",
    " ",
    ":memory:",
    "sqlite://",
    "data",
    "file.txt/x.sqlite",
    "garbage.sqlite",
    "foo://bar",
    "sqlite://host/x",
    "postgresql://u:pw@[/x",
]
ABSENT = ["absent.sqlite", "absent.json", "published:absent", "bad.json"]
DEVICES = ["meta", "cudaa", "cuda:99", "cpu:x", "meta:0:1"]
FORMATS = ["xml", "", "pdf"]
OUTPUTS = ["data", "file.txt/x.csv"]
NAMES = [
    "nope",
    "nonee",
    "no/such.py:net",
    "model.py:nope",
    "bad.py:net",
    "model.py",
    ":",
    "exits.py:net",
    "a:b:c",
]
DATASETS = ["nope", "minst", "absent.npz", "file.txt", "broken", "broken.npz", "empty"]
PRECISIONS = ["float16", "bfloat", "32"]

#: What may follow what: the words, the option, its wrong values.
WRONG: list[tuple[list[str], str, list[str]]] = [
    (RUN, "--samples", NUMBERS), (RUN, "--sample-seed", SEEDS), (RUN, "--seeds", [*SEEDS, "0,x"]),
    (RUN, "--attack-seed", SEEDS), (RUN, "--epsilon", RADII), (RUN, "--norm", NORMS),
    (RUN, "--scoring-draws", NUMBERS), (RUN, "--eot", NUMBERS), (RUN, "--set", SETTINGS),
    ([*RUN, "--set", "none.epochs=1"], "--set", ["none.epochs=2", "none.epochs=x"]),
    (RUN, "--weights", ["net.pt", "absent.pt"]), (RUN, "--grid", ["absent.toml", "data", "bad.toml", "net.pt"]),
    (RUN, "--store", [*STORES, "absent.json"]), (RUN, "--device", DEVICES), (RUN, "--batch-size", NUMBERS[:5]),
    (RUN, "--precision", PRECISIONS), (RUN, "--access", ["graybox", "nope", "imported"]),
    (RUN, "--attacks", ["nope", "pgdd", "bad.py:A", "model.py:net", "torchattacks:Nope"]),
    *((RUN, option, NOTHING) for option in ("--epsilon", "--attacks", "--dataset", "-d", "--access", "--seeds")),
    (RUN, "--samples", NOTHING), (RUN, "--secret", [",", "xyz", "abc"]),
    (RUN, "--nope", [""]), (RUN, "extra", [""]), (RUN, "--dataset", DATASETS[:2]),
    (["run", "--dataset", "tiny", "-a", "fgsm", "-d"], "", NAMES),
    (["run", "-d", "none", "-a", "fgsm", "--dataset"], "", DATASETS),
    (["run"], "-q", [""]),
    (["run", "-d", "model.py:net", "--dataset", "tiny", "-a", "fgsm", "-q"], "--weights",
     ["absent.pt", "data", "file.txt", "garbage.pt", "page.pt", "net.pt#nope", "wrong.pt"]),
    (["run", "-d", "model.py:net", "--dataset", "tiny", "-a", "fgsm", "-q", "--weights", "net.pt"], "--set",
     ["model.py:net.epochs=3", "model.py:net.nope=1", "model.py:net.randomized=7"]),
    (TRAIN, "--seeds", ["x", "1.5"]), (TRAIN, "--set", SETTINGS), (TRAIN, "--precision", PRECISIONS),
    (TRAIN, "--device", DEVICES), (TRAIN, "--grid", ["absent.toml", "bad.toml"]), (TRAIN, "--store", STORES),
    (["train", "--dataset", "tiny", "-q", "-d"], "", NAMES), (TRAIN, "--weights", ["absent.pt"]),
    (AUDIT, "--samples", NUMBERS), (AUDIT, "--steps", NUMBERS[:5]), (AUDIT, "--random-points", ["x", "-1", "1.5"]),
    (AUDIT, "--seed", ["x", "1.5"]), (AUDIT, "--epsilon", RADII), (AUDIT, "--norm", NORMS),
    (AUDIT, "--format", FORMATS), (AUDIT, "--device", DEVICES), (["audit"], "", [""]),
    (["audit", "psssr"], "", [""]),
    (REPORT, "--format", FORMATS), (REPORT, "--output", OUTPUTS), (REPORT, "--store", [*STORES, *ABSENT]),
    (REPORT, "--dataset", ["nope"]), (REPORT, "-d", ["nope"]), (REPORT, "--against", ["nope", "0000", ""]),
    (REPORT, "--epsilon", ["x", "nan", "0.7"]), (REPORT, "--norm", NORMS), (REPORT, "--samples", ["x", "-1", "7"]),
    (REPORT, "--attacks", ["nope"]), (REPORT, "--access", ["nope"]), (REPORT, "--nope", [""]),
    (COMPARE, "", [""]), (["compare", "none"], "", [""]), (["compare", "none", "none"], "", [""]),
    (COMPARE, "--weights", ["absent.pt", "net.pt"]), (COMPARE, "--format", FORMATS), (COMPARE, "--store", ABSENT),
    (["publish"], "", ["", "../x", "a b", "file.txt/x.json"]), (["publish", "x"], "--store", ABSENT),
    (["reproduce"], "", ["absent.json", "bad.json", "file.txt"]),
    (["reproduce", "absent.json"], "--row", ["none"]), (["reproduce", "s.sqlite"], "--row", ["nope"]),
    (FIGURES, "", ["nope"]), (FIGURES, "--formats", ["gif", "x"]), (FIGURES, "--samples", NUMBERS[:5]),
    (FIGURES, "--store", [*STORES, *ABSENT]), (FIGURES, "--output", ["file.txt/x"]), (FIGURES, "-d", ["nope"]),
    (["diff"], "", ["", "x"]), (["diff", "1"], "", ["", "x", "9"]), (DIFF, "--store", ABSENT[:1]),
    (DIFF, "--other-store", ABSENT[:1]), (DIFF, "--format", FORMATS),
    (["export"], "", ["", "nope", "zzzzzzzz", "0"]), (["export", "00"], "--store", ABSENT[:1]),
    (["import-adversarials"], "", ["", "absent.npz"]), (IMPORT, "--epsilon", RADII), (IMPORT, "--norm", NORMS),
    (IMPORT, "--samples", NUMBERS), (IMPORT, "--device", DEVICES), (IMPORT, "--set", SETTINGS[:7]),
    (IMPORT, "--origin", ["\x1b[31m", ""]), (IMPORT, "--weights", ["absent.pt"]),
    (["import-adversarials", "garbage.pt", "-d", "none", "--dataset", "tiny"], "", [""]),
    (["list"], "", ["nope", "cells --store absent.sqlite"]), (["list", "runs"], "--store", ABSENT[:1]),
    (["list", "cells"], "--samples", ["x"]), (["list", "attacks"], "--nope", [""]),
    (["remove", "runs"], "", ["", "x", "99"]), (["remove", "cells"], "", ["", "nope"]),
    (["remove", "defenses"], "", ["", "nope"]), (["show"], "", ["", "nope", "none/white-box/nope"]),
    (["new", "defense"], "", ["", "x" * 300, "1x", "a b", "none", "../x", "=x"]),
    (["new", "attack"], "", ["", "1x", "pgd", "../x"]), (["new", "defense", "mine"], "--kind", ["nope"]),
    (["init"], "", ["extra"]), (DOCTOR, "--nope", [""]), (["nope"], "", [""]),
    (["track"], "", ["", "nope"]), (["track", "mlflow"], "--store", ABSENT[:1]), (["--nope"], "", [""]),
]  # fmt: skip


def cases() -> Iterator[list[str]]:
    """Every command line."""
    for words, option, values in WRONG:
        for value in values:
            yield [
                *words,
                *([option] if option else []),
                *([value] if value or option in TAKES_NOTHING else []),
            ]


def lay_out(folder: Path) -> None:
    """Files that the words name: images, a network, weights, and things that are none of these."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 28, 28)).astype(np.uint8), np.arange(60) % 10
    data = folder / "data"
    (data / "nothing").mkdir(parents=True)
    np.savez(data / "tiny.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    (data / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    np.savez(data / "empty.npz", x_test=x[:0], y_test=y[:0])
    np.savez(folder / "adv.npz", x_adv=x[40:, None])
    (folder / "model.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    (folder / "bad.py").write_text("def net(:\n")
    (folder / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (folder / "file.txt").write_text("text\n")
    (folder / "garbage.sqlite").write_bytes(bytes(range(256)) * 40)
    (folder / "garbage.pt").write_bytes(bytes(range(256)))
    (folder / "page.pt").write_text("<!DOCTYPE html><html>sign in</html>")
    (folder / "bad.toml").write_text("defenses = [")
    (folder / "bad.json").write_text('{"cells": [{}]}')
    import torch
    from torch import nn

    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).state_dict(), folder / "net.pt")
    torch.save(nn.Linear(3, 3).state_dict(), folder / "wrong.pt")


def fault(words: list[str]) -> str:
    """What is wrong with how a command line was refused; empty if it was as it should be."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
    except SystemExit as stop:
        return f"SystemExit {stop.code}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    lines = [line for line in err.getvalue().splitlines() if line.startswith("benchbox: error:")]
    if status != 2:
        return f"status {status}: {(err.getvalue() or out.getvalue())[-200:]!r}"
    if len(lines) != 1:
        return f"{len(lines)} lines of error: {err.getvalue()[:300]!r}"
    return "" if lines[0].isprintable() else f"not printable: {lines[0]!r}"


def run(
    every: int = 1, heard: Callable[[str, str], object] = lambda words, said: None
) -> tuple[int, dict[str, str]]:
    """Try the command lines, or every so-manieth.

    Args:
        every: 1 for all.
        heard: Called with each and with what was wrong.

    Returns:
        How many there were, and those refused in another way than they should be.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        lay_out(Path(name))
        os.environ["BENCHBOX_DATA"] = str(Path(name) / "data")
        tried = list(cases())[::every]
        found = {}
        for words in tried:
            if said := fault(words):
                found[" ".join(words)] = said
            heard(" ".join(words), said)
    return len(tried), found


if __name__ == "__main__":
    show = partial(print, sep="\n    ", flush=True)
    count, faults = run(
        int(sys.argv[1]) if sys.argv[1:] else 1, lambda words, said: show(repr(words), said) if said else None
    )
    sys.stdout.write(
        f"{count} wrong command lines, {len(faults)} refused in another way than in one line with status 2\n"
    )
