"""Bad plug-ins by the hundred, each beside a good one: none ends the program, passes, or moves its number.

python tests/fuzz/bad_plugins.py        # all of them; the tests take every tenth
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchbox.cli import main

GOOD = """
from torch import nn
import torch.nn.functional as F
from benchbox import Card, Defense
class Good(Defense):
    card = Card("good", "a linear classifier")
    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    def losses(self, batch):
        return {"classifier": {"ce": F.cross_entropy(self.classifier(batch.x), batch.y)}}
"""
DEFENSE = """
import builtins, logging, os, random, signal, sys, warnings
import numpy as np, torch
from torch import nn
import torch.nn.functional as F
from benchbox import Attack, Card, Defense, stand_in
{module}
class Bad(Defense):
    card = Card("bad", "a bad one")
    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        {init}
    def forward(self, x, draws=None):
        {forward}
        return self.classifier(x)
    def losses(self, batch):
        {losses}
        return {{"classifier": {{"ce": F.cross_entropy(self.classifier(batch.x), batch.y)}}}}
    def players(self):
        {players}
        return super().players()
    def prepare(self, batch):
        {prepare}
        return {{}}
    def train(self, mode=True):
        {train}
        return super().train(mode)
"""
ATTACK = """
import builtins, logging, os, random, signal, sys, warnings
from dataclasses import dataclass
import numpy as np, torch
from benchbox import Attack, Card, Nature
{module}
@dataclass(frozen=True, kw_only=True)
class Bad(Attack):
    card = Card("bad", "a bad one", kind="gradient")
    nature = Nature("one-step", climbs=("cross-entropy",))
    def search(self, model, x, y, threat, draws):
        {search}
        return x.clone()
"""
#: What ends it, or returns something else: has to be refused.
ENDS = {
    "raise": "raise ValueError('no')", "exit": "sys.exit(0)", "exit 1": "sys.exit('bye')",
    "os._exit": "os._exit(0)", "os.abort": "os.abort()",
    "quit": "raise SystemExit",
    "interrupt": "raise KeyboardInterrupt", "base": "raise BaseException('x')", "generator": "raise GeneratorExit",
    "stop": "raise StopIteration", "recursion": "f = lambda: f(); f()", "memory": "raise MemoryError('x')",
    "endless": "raise ValueError('x' * 100000)", "surrogate": "raise ValueError('\\udcff')",
    "group": "raise BaseExceptionGroup('many', [ValueError('a'), SystemExit(0)])",
    "no text": "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()",
    "assert": "assert False", "lines": "raise RuntimeError('a\\nb\\x1b[31mc')",
}  # fmt: skip
RETURNS = {
    "None": "return None", "tuple": "return (x, x)", "list": "return [x]", "numpy": "return x.detach().numpy()",
    "text": "return 'x'", "number": "return 1.0", "complex": "return torch.complex(x, x)",
    "integer": "return x.long()",
    "class": "return Bad", "generator": "return (i for i in x)", "dict": "return {'logits': x}",
    "truth": "return x > 0.5", "short": "return x[:-1]", "empty": "return x[:0]", "flat": "return x.flatten()",
    "sparse": "return x.to_sparse()", "meta": "return torch.empty(len(x), 10, device='meta')",
    "NaN": "return x * float('nan')", "infinite": "return x / 0",
}  # fmt: skip
#: What the process has only one of: the good one's number stays.
BENDS = {
    "dtype": "torch.set_default_dtype(torch.float64)", "device": "torch.set_default_device('meta')",
    "threads": "torch.set_num_threads(3)", "folder": "os.chdir('/')", "environment": "os.environ.clear()",
    "seed": "torch.manual_seed(0); np.random.seed(0); random.seed(0)", "stdout": "sys.stdout = None",
    "stderr": "sys.stderr = open(os.devnull, 'w')", "path": "sys.path.clear()", "argv": "sys.argv.clear()",
    "grad": "torch.set_grad_enabled(False)", "recursion": "sys.setrecursionlimit(300)",
    "warnings": "warnings.simplefilter('error')", "numpy": "np.seterr(all='raise')",
    "deterministic": "torch.use_deterministic_algorithms(True)",
    "anomaly": "torch.autograd.set_detect_anomaly(True)",
    "signal": "signal.signal(signal.SIGINT, signal.SIG_IGN)", "print": "print('hello' * 9)",
    "excepthook": "sys.excepthook = None", "matmul": "torch.set_float32_matmul_precision('medium')",
    "locale": "__import__('locale').setlocale(0, 'C')", "logging": "logging.disable(50)",
}  # fmt: skip
SCAPES = ("module", "init", "forward", "losses", "players", "prepare", "train")


class Case(NamedTuple):
    """A plug-in file, and whether running it has to fail."""

    name: str
    text: str
    attack: bool
    fails: bool


def cases() -> Iterator[Case]:
    """Every bad plug-in."""
    nothing = dict.fromkeys(SCAPES, "pass")
    for place in SCAPES:
        for name, code in ENDS.items():
            if place in ("module", "init", "forward", "losses") or name in ("raise", "exit", "interrupt"):
                yield Case(f"{place} {name}", DEFENSE.format(**{**nothing, place: code}), False, True)
    for name, code in RETURNS.items():
        yield Case(f"forward returns {name}", DEFENSE.format(**{**nothing, "forward": code}), False, True)
        if name not in ("NaN", "infinite"):
            code = code.replace("x", "batch.x")
            yield Case(f"losses returns {name}", DEFENSE.format(**{**nothing, "losses": code}), False, True)
    for name, code in BENDS.items():
        for place in ("module", "forward"):
            # Who ends his own graph has no gradient to attack.
            blind = (place, name) == ("forward", "grad")
            yield Case(f"{place} bends {name}", DEFENSE.format(**{**nothing, place: code}), False, blind)
    for name, code in ENDS.items():
        yield Case(f"search {name}", ATTACK.format(module="pass", search=code), True, True)
    for name, code in RETURNS.items():
        if name != "flat":
            yield Case(f"search returns {name}", ATTACK.format(module="pass", search=code), True, True)
    for name, code in BENDS.items():
        yield Case(f"search bends {name}", ATTACK.format(module="pass", search=code), True, False)


def fault(case: Case, folder: Path, expected: object) -> str:
    """What is wrong with how a plug-in was taken; empty if nothing is."""
    (folder / "bad.py").write_text(case.text)
    before = _globals()
    status, told = _run("bad.py:Bad" if not case.attack else "", "bad.py:Bad" if case.attack else "")
    if told.startswith("traceback"):
        return told
    if _globals() != before:
        return "globals were not put back"
    if case.fails and (status != 2 or "benchbox: error:" not in told):
        return f"status {status}: {told[-300:]!r}"
    if not case.fails and status != 0:
        return f"a harmless one ends with status {status}: {told[-300:]!r}"
    # In the same process, afterwards: the number is what it was.
    (folder / "s.sqlite").unlink(missing_ok=True)
    found = _number("", "")
    return "" if found == expected else f"the good one's number is {found}, not {expected}"


def _run(defense: str, attack: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    asked = [
        "-d",
        ",".join(filter(None, [defense, "good.py:Good"])),
        "-a",
        ",".join(filter(None, [attack, "fgsm"])),
    ]
    epochs = [word for name in (defense, "good.py:Good") if name for word in ("--set", f"{name}.epochs=1")]
    words = ["run", *asked, *epochs, "--dataset", "tiny", "--access", "white-box", "--store", "s.sqlite", "-q"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return main([*words, "--epsilon", "0.02", "--batch-size", "20"]), err.getvalue()
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return 1, f"traceback: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"


def _number(defense: str, attack: str) -> object:
    from benchbox.store import Store

    _run(defense, attack)
    with Store.open("s.sqlite") as store:
        return [
            (e.outcome.clean.tolist(), e.outcome.adversarial.tolist(), e.outcome.l2.tolist())
            for e in store.evidence(defenses=["good.py:Good"])
            if e.cell.attack.name == "fgsm"
        ]


def _globals() -> object:
    import torch

    return (
        torch.get_default_dtype(), str(torch.get_default_device()), torch.get_num_threads(),
        Path.cwd(), dict(os.environ),
        list(sys.path), list(sys.argv), torch.is_grad_enabled(), sys.getrecursionlimit(), np.geterr(),
        torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(), sys.excepthook,
        torch.get_rng_state().tolist(),
    )  # fmt: skip


def run(
    every: int = 1, heard: Callable[[str, str], object] = lambda name, said: None
) -> tuple[int, dict[str, str]]:
    """Try the plug-ins, or every so-manieth.

    Args:
        every: 1 for all.
        heard: Called with each and with what was wrong.

    Returns:
        How many there were, and those taken otherwise than they should be.
    """
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 28, 28)).astype(np.uint8), np.arange(60) % 10
    tried, found = list(cases())[::every], {}
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name).resolve()
        (folder / "good.py").write_text(GOOD)
        np.savez(folder / "tiny.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
        os.environ["BENCHBOX_DATA"] = name
        expected = _number("", "")
        assert expected
        for case in tried:
            if said := fault(case, folder, expected):
                found[case.name] = said
            heard(case.name, said)
    return len(tried), found


if __name__ == "__main__":

    def show(name: str, said: str) -> None:
        sys.stdout.write(f"{name}\n    {said}\n" if said else "")
        sys.stdout.flush()

    count, faults = run(int(sys.argv[1]) if sys.argv[1:] else 1, show)
    sys.stdout.write(f"{count} bad plug-ins, {len(faults)} taken otherwise than they should be\n")
