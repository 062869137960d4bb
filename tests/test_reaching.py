"""Who reaches beyond its images is refused, gains nothing, or is named; replaced functions are put back."""

from __future__ import annotations

from functools import partial

import greenlet
import pytest
import torch
from broken_defenses import THREAT
from digits import held_out, withstanding
from reaching_defenses import (
    NAMED,
    NOTICING,
    REFUSED,
    Ancestor,
    Company,
    ForkWise,
    Nodes,
    Twins,
    TwoFaced,
)
from test_audit_cheats import NoCheat
from test_listeners import findings as listening

from benchbox import DefenseError, Draws, RequestError, ThreatModel
from benchbox.contract import border, overheard
from benchbox.contract.home import Home
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

#: What the audit says of one, on fewer images.
findings = partial(listening, samples=20)
#: The check that has to fail, and what its sentence has to name.
EXPECTED = {
    ForkWise: ("A13", "in a fork of the process"),
    Twins: ("A10", "depends on the images beside it"),
    Company: ("A10", "depends on the images beside it"),
    TwoFaced: ("B11", "does not match finite differences"),
    Ancestor: ("A16", "frames of greenlets"),
}


@pytest.mark.parametrize("cls", REFUSED, ids=lambda cls: cls.card.name)
def test_what_is_left_behind_while_a_defence_is_built_is_refused_and_put_away(cls) -> None:
    before = torch.Tensor.sign, ThreatModel.project, torch.sign, greenlet.gettrace()
    with (
        pytest.raises(DefenseError, match=f"defence {cls.card.name} (leaves|replaces)"),
        border.crossing(cls, DefenseError),
    ):
        cls()
    assert (torch.Tensor.sign, ThreatModel.project, torch.sign, greenlet.gettrace()) == before
    assert withstanding(NoCheat(), THREAT, 20, 8) < 0.5


@pytest.mark.parametrize("module", ["benchbox.plugins.defenses.pssr", "theirs"])
def test_what_a_built_in_defence_does_is_looked_at_too(module: str) -> None:
    """A built-in purifier stands on anybody's base, and anybody's class can say that it is built in."""
    cls = type("Mine", (NoCheat,), {"__module__": module})
    sign = torch.sign
    with pytest.raises(DefenseError, match=r"replaces torch\.sign"), border.crossing(cls, DefenseError):
        torch.sign = torch.cos
    assert torch.sign is sign


@pytest.mark.parametrize(
    "left", ["torch.Tensor.sign = lambda x: -x", "sys.addaudithook(print)", "sys.setprofile(print)"]
)
def test_a_file_that_leaves_something_behind_is_refused(left: str, tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"import sys, torch\n{left}\n")
    sign = torch.Tensor.sign
    with pytest.raises(RequestError, match=r"plug-in file .*mine\.py (leaves|replaces)"):
        Home(file)
    assert torch.Tensor.sign is sign


def test_what_is_added_or_loads_files_is_nobodys_business(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import functools, torch\n"
        "torch.Tensor.my_own_method = lambda x: x\n"
        "torch.load = functools.partial(torch.load, weights_only=True)\n"
    )
    load = torch.load
    try:
        Home(file)
        assert torch.load is not load
    finally:
        torch.load = load
        del torch.Tensor.my_own_method


@pytest.mark.parametrize("cls", NOTICING, ids=lambda cls: cls.card.name)
def test_who_notices_gains_nothing(cls) -> None:
    # Any decoy would be right one time in ten.
    assert withstanding(cls(), THREAT, 40, 8) < withstanding(NoCheat(), THREAT, 40, 8) + 0.1


def test_callbacks_of_what_is_handed_over_see_no_frame_of_who_asks() -> None:
    (cls,) = (cls for cls in NOTICING if cls.card.name == "dropped")
    defense = cls()
    withstanding(defense, THREAT, 20, 8)
    assert len(defense.heard) > 8
    assert not any(defense.heard)


@pytest.mark.parametrize("cls", NAMED, ids=lambda cls: cls.card.name)
def test_who_answers_by_what_it_reached_is_named(cls) -> None:
    check, words = EXPECTED[cls]
    found = findings(cls)
    assert found[check].verdict == "FAIL", {f.check: f.sentence for f in found.values() if f.verdict == "FAIL"}
    assert words in found[check].sentence


def test_answers_are_plain_tensors_that_nobody_changes_afterwards() -> None:
    kept = []

    class Keeping(NoCheat):
        def forward(self, x, draws=None):
            kept.append(super().forward(x, draws))
            return kept[-1]

    x, _, rows = held_out(3)
    judge = Judge(Keeping(), Layout())
    for leaf in (x, x.clone().requires_grad_()):
        said = judge.ask(leaf, Draws(rows)).detach()
        before = said.clone()
        with torch.no_grad():
            kept[-1].zero_()
        assert torch.equal(said, before)
    faced = Judge(TwoFaced(), Layout()).ask(x, Draws(rows))
    assert type(faced) is torch.Tensor


def test_code_is_read_for_names_in_functions_and_in_those_inside_them() -> None:
    assert len(overheard.written(Ancestor)) == 1
    assert overheard.written(NoCheat) == set()


def test_a_count_of_nodes_is_found_out() -> None:
    # It sees the loss of an attack one question too late, so that the first scoring is a decoy as well.
    assert withstanding(Nodes(), THREAT, 40, 8) < withstanding(NoCheat(), THREAT, 40, 8) + 0.1


def test_what_another_defence_of_the_file_names_is_its_own_affair() -> None:
    assert overheard.written(ForkWise) == set()
