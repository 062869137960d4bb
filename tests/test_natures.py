"""Attacks say what they are, cells remember it, and the audit judges by that and by no name."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidence import CELL, outcome

import benchbox
from benchbox.analysis.panel import lacking
from benchbox.audit import Stored, Subject, audit
from benchbox.audit.conduct import _declared
from benchbox.contract import registry
from benchbox.domain import NULL_ATTACK, Access, Cell, Evidence, Nature, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.engine.request import Request
from benchbox.engine.session import Session, Settings

NOWHERE = Path("/nonexistent")
DEFENSES, ATTACKS = registry.defenses(NOWHERE), registry.attacks(NOWHERE)
THREAT = ThreatModel("linf", 0.2)
SAMPLES = SampleList("digits", "test", tuple(range(60)), "digest")


def attack(name: str, **settings: Any) -> Any:
    plugin = ATTACKS.get(name)
    return plugin.cls.configure(**plugin.preset, **settings)


def evidence(name: str, broken: range, nature: Nature | None) -> Evidence:
    """Sixty images, all correct, of which an attack on the deployed defence breaks some."""
    cell = replace(
        CELL, attack=Spec(name, {}, "benchbox/1"), access=Access.WHITE_BOX, artifact="a", view=ViewSpec("a"),
        threat=THREAT, samples=SAMPLES, nature=nature,
    )  # fmt: skip
    labels = np.zeros(60, np.int64)
    fell = np.isin(np.arange(60), broken).astype(np.int64)[:, None]
    found = replace(outcome(cell, range(60)), label=labels, clean=labels[:, None], adversarial=fell)
    return Evidence(cell, replace(found, linf=np.full(60, 0.2)), "done")


def verdicts(*cells: Evidence) -> dict[str, str]:
    return {f.check: str(f.verdict) for f in audit(Stored(Subject("x", "a"), THREAT, (1, 8, 8), cells))}


@pytest.mark.parametrize("name", [n for n in ATTACKS.names() if n != "torchattacks"])
def test_every_built_in_attack_says_what_it_is(name: str) -> None:
    assert attack(name).declare() is not None


def test_every_attack_of_the_library_is_told() -> None:
    library = pytest.importorskip("torchattacks")
    names = [
        n for n, c in vars(library).items() if getattr(c, "__module__", "").startswith("torchattacks.attacks.")
    ]
    natures = {name: attack(f"torchattacks:{name}").declare() for name in names if name != "AutoAttack"}
    assert len(natures) > 30
    assert [name for name, nature in natures.items() if nature is None] == []
    assert natures["Square"].queries == 5000
    assert attack("torchattacks:APGD", arguments={"loss": "dlr", "steps": 7}).declare() == Nature(
        "iterative", climbs=("dlr",), steps=7
    )


def test_settings_of_an_attack_are_its_effort() -> None:
    assert attack("pgd", steps=7, step=0.5, restarts=3).declare() == Nature(
        "iterative", climbs=("cross-entropy",), steps=7, step=0.5, restarts=3
    )
    assert attack("square", queries=11).declare().queries == 11


def test_a_cell_remembers_it_and_an_old_one_has_none() -> None:
    cell = replace(CELL, nature=Nature("score-based", climbs=("margin",), queries=5))
    assert Cell.from_dict(cell.as_dict()) == cell
    assert (cell.key, cell.craft_key) == (CELL.key, CELL.craft_key)
    old = cell.as_dict()
    del old["nature"]
    assert Cell.from_dict(old).nature is None


@pytest.mark.parametrize("name", ["square", "torchattacks:Square"])
def test_the_same_images_broken_by_square_get_the_same_verdict_under_any_name(name: str) -> None:
    if name != "square":
        pytest.importorskip("torchattacks")
    gradient = evidence("pgd", range(0), attack("pgd").declare())
    told = verdicts(gradient, evidence(name, range(60), attack(name).declare()))
    assert told["B1"] == "FAIL"


def test_what_no_one_declared_is_not_guessed() -> None:
    gradient = evidence("pgd", range(0), attack("pgd").declare())
    told = verdicts(gradient, evidence("theirs", range(60), None))
    assert (told["B1"], told["B4"], told["C8"]) == ("INCOMPLETE", "INCOMPLETE", "INCOMPLETE")


def test_an_undeclared_attack_hides_no_failure() -> None:
    gradient = evidence("pgd", range(0), attack("pgd").declare())
    scores = evidence("square", range(60), attack("square").declare())
    assert verdicts(gradient, scores, evidence("theirs", range(3), None))["B1"] == "FAIL"


def test_cells_of_an_older_store_are_judged_as_if_they_had_been_recorded() -> None:
    old = evidence("square", range(60), None)
    old = replace(old, cell=replace(old.cell, attack=Spec("square", {"queries": 5000, "p": 0.8}, "benchbox/1")))
    assert _declared(old, ATTACKS).cell.nature == attack("square").declare()
    gone = replace(old, cell=replace(old.cell, attack=Spec("gone", {}, "benchbox/1")))
    assert _declared(gone, ATTACKS).cell.nature is None
    other = replace(old, cell=replace(old.cell, attack=Spec("square", {}, "sha256:of another file")))
    assert _declared(other, ATTACKS).cell.nature is None


#: Words that are also names: what they mean here, by file. An empty list in words, `... or "none"`, goes without.
OTHER_MEANINGS = {
    ("contract/ascent.py", "none"),  # torch's reduction
    ("audit/probes/gradients.py", "noise"),  # a random stream
    ("audit/price.py", "noise"),  # draws that a probe makes of it
    ("audit/probes/passes.py", "noise"),  # the same
    ("figures/style.py", "none"),  # matplotlib: letters stay letters
    ("provenance.py", "torchattacks"),  # packages
    ("cli/doctor.py", "torchattacks"),
    ("cli/doctor.py", "robustbench"),
    ("analysis/paper_table.py", "pgd"),  # what stands behind BPDA in the paper's Table 3
    ("analysis/reproduction.py", "pssr"),  # the paper, not the defence
    ("contract/declaration.py", "square"),  # whether a defence wants images as wide as high
    ("engine/isolation/stranger.py", "square"),  # the same
    ("engine/isolation/proxy.py", "square"),
    ("engine/isolation/teller.py", "square"),
    ("report/leaderboard_record.py", "null"),  # a measure in CSV
}


def names_in(source: str, names: set[str]) -> set[str]:
    """The registered names among the strings of some code; docstrings are prose."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    prose |= {id(node.values[-1]) for node in ast.walk(tree) if isinstance(node, ast.BoolOp)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
    return {node.value for node in strings if node.value in names}


def test_the_engine_names_no_plug_in_but_the_control() -> None:
    root, names = Path(benchbox.__file__).parent, {*DEFENSES.names(), *ATTACKS.names()}
    found = {
        (file.relative_to(root).as_posix(), name)
        for file in root.rglob("*.py")
        for name in names_in(file.read_text(encoding="utf-8"), names)
    }
    assert found - OTHER_MEANINGS == {("domain/nouns.py", NULL_ATTACK)}


def test_a_table_of_names_would_be_found() -> None:
    source = '"""Runs pgd."""\nKINDS = {"square": "score"}\nprint(text or "none")\nif name == "aa": pass'
    assert names_in(source, {"pgd", "square", "none", "aa"}) == {"square", "aa"}


def test_autoattack_on_a_defence_that_draws_is_no_black_box_search() -> None:
    """Its version `rand` has neither Square nor targets: who ran nothing else was not searched by queries."""
    session = Session(DEFENSES, ATTACKS, Settings(device="cpu"))
    wanted = Request(defenses=("none", "carso"), attacks=("aa",), dataset="digits", samples=8, eot=2)
    cells = {(c.defense.name, c.access): c for c in session.plan(wanted).cells if c.attack.name == "aa"}
    plain, drawn = cells["none", Access.WHITE_BOX].nature, cells["carso", Access.WHITE_BOX].nature
    assert plain == cells["carso", Access.GRAY_BOX].nature == attack("aa").declare()
    assert plain.families
    assert plain.queries == 5000
    assert drawn == replace(plain, climbs=("cross-entropy", "dlr"), families=(), targets=0, queries=0)
    for nature, randomized in ((plain, False), (drawn, True)):
        cell = replace(cells["carso", Access.WHITE_BOX], nature=nature, view=ViewSpec("a"), artifact="a")
        found = Evidence(cell, outcome(cell, range(0)), "done")
        missing = lacking([found], purifies=False, randomized=randomized)
        assert ("a score-based attack" in missing) == randomized
