"""The benchmarks run, and their arithmetic is right; what they measure is theirs to say."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = loaded("rounds", monkeypatch)
    found = rounds.Rounds({"ours": [1.0, 3.0, 2.0], "theirs": [2.0, 4.0, 8.0]})
    assert found.ratios("ours", "theirs") == [0.5, 0.75, 0.25]
    said = "ours / theirs: 0.50 (0.25 to 0.75; 2.00 s and 4.00 s)"
    assert found.say("ours", "theirs") == said
    assert found.say("ours", "theirs", 0.4) == f"{said}, goal 0.40: missed"
    assert found.say("ours", "theirs", 0.5).endswith("met")


def test_a_roofline_is_passes_times_operations_by_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    roofline, subject = loaded("roofline", monkeypatch), loaded("subject", monkeypatch)
    made = subject.Attacked(torch.ones(10, dtype=torch.bool), forwards=5.0, backwards=2.0)
    line = roofline.Roofline(rate=1e9, operations=(1e8, 3e8), alone=(0.2, 0.5))
    # Ten images, each three passes forwards and two both ways.
    assert line.bounds(made) == pytest.approx((9.0, 16.0))
    assert "22% and 40% of its 40.00 s" in line.say("AA", made, 40.0)


def test_the_roofline_of_a_network_is_measured_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    roofline, subject = loaded("roofline", monkeypatch), loaded("subject", monkeypatch)
    one = subject.untrained("lenet5", subject.made_up(1, 8, 4), 4, torch.device("cpu"))
    line = roofline.roofline(one, subject.Layout(False, 4))
    # Two convolutions of nine places and two matrices; a multiplication and an addition each.
    whole = 2 * (9 * 32 * 64 + 9 * 32 * 64 * 16 + 64 * 4 * 200 + 200 * 10)
    assert line.operations == (whole, 2 * whole)
    assert line.rate > 0
    assert line.alone[0] > 0


def test_the_order_turns_around(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, called = loaded("rounds", monkeypatch), []
    threads = torch.get_num_threads()
    try:
        rounds.measured({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    finally:
        torch.set_num_threads(threads)
    assert called == ["a", "b", "b", "a"]


def test_faults_are_planted_one_at_a_time_and_inside_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = loaded("faults", monkeypatch)
    source = (
        '"""Words."""\n@frozen(eq=False)\nclass Ball:\n    def holds(self, d: float = 0.5) -> bool:\n'
        "        if not d:\n            raise Error(d)\n        return d <= self.radius and seen(d, by=2)\n"
    )
    every = faults.faults(source)
    assert [(fault.line, fault.was, fault.became) for fault in every] == [
        (4, "0.5", "1.0"),
        (5, "not d", "d"),
        (7, "return d <= self.radius and seen(d, by=2)", "return None"),
        (7, "d <= self.radius and seen(d, by=2)", "d <= self.radius or seen(d, by=2)"),
        (7, "d <= self.radius", "d < self.radius"),
        (7, "seen(d, by=2)", "seen(None, by=2)"),
        (7, "seen(d, by=2)", "seen(d)"),
        (7, "2", "3"),
        (7, "2", "1"),
    ]
    whole = ast.unparse(ast.parse(source))
    for fault in every:
        assert faults.planted(source, fault) == ast.unparse(ast.parse(whole)).replace(fault.was, fault.became, 1)


def test_without_a_gpu_it_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name in ("rounds", "peers", "subject"):
        loaded(name, monkeypatch)
    gpu = loaded("gpu", monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    said = capsys.readouterr().out
    assert said == "there is no GPU here; python benchmarks/gpu.py --cpu rehearses it at tiny size\n"


def test_what_a_gpu_is_asked_is_rehearsed_without_one(tmp_path: Path) -> None:
    out = tmp_path / "said.json"
    command = [sys.executable, "gpu.py", "--cpu", "--out", str(out)]
    ran = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    lines = json.loads(out.read_text("utf-8"))
    assert not [line for line in lines if "failed" in line or "left out" in line]
    assert any(line.startswith("BIM on the CPU and here: 0 of 4 images otherwise") for line in lines)
    for part in (
        "lenet5, PGD-2 / theirs",
        "lenet5, AutoAttack, bfloat16 / theirs",
        "smallcnn, a gradient",
        "PGD-AT",
    ):
        assert any(line.startswith(part) for line in lines), part
