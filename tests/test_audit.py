"""Every broken defence is found out for the right reason; honest ones are not accused."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from broken_defenses import (
    BROKEN,
    HONEST,
    JPEG,
    THREAT,
    BatchDependent,
    DeclaredNoise,
    Detached,
    LogProbabilities,
    LookUp,
    Quantized,
    Saturated,
    SecondTime,
    UndeclaredNoise,
    WinnersTakeAll,
    Wrapped,
)
from digits import held_out
from evidence import CELL, outcome

from benchbox.audit import CHECKS, Case, Effort, Stored, Subject, Verdict, audit, summary, toll
from benchbox.audit import check as by_id
from benchbox.audit.checks.thresholds import table
from benchbox.audit.evidence import Panel, Rescored, Run, _reaches
from benchbox.audit.probes.probe import probe
from benchbox.domain import Access, Evidence, Nature, SampleList, Spec, ViewSpec
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

DOCS = Path(__file__).parent.parent / "docs"
EFFORT = Effort(
    samples=80, steps=20, restarts=2, random_points=100, queries=150, doubled=20, elsewhere=20, binarisation=24,
    directions=4, eot=2, scoring_draws=5,
)  # fmt: skip

#: What has to be found, and at least how bad.
EXPECTED = {
    Saturated: {"B16": "WARN"},
    LogProbabilities: {"B16": "WARN"},
    Quantized: {"A7": "FAIL", "B1": "FAIL", "B3": "FAIL", "B9": "FAIL"},
    WinnersTakeAll: {"B1": "WARN"},
    UndeclaredNoise: {"A6": "FAIL"},
    Detached: {"A7": "FAIL", "B1": "FAIL", "B2": "FAIL", "B9": "FAIL", "B11": "FAIL"},
    BatchDependent: {"A10": "FAIL"},
    SecondTime: {"A6": "FAIL"},
    LookUp: {"A11": "FAIL"},
    JPEG: {"A7": "FAIL", "B1": "FAIL", "B9": "FAIL"},
}


@cache
def probed(cls):
    # EOT multiplies everything; a randomised defence is probed with less.
    effort = replace(EFFORT, steps=10, restarts=1, doubled=10) if cls.randomized else EFFORT
    return probe(Judge(cls(), Layout()), *held_out(EFFORT.samples), THREAT, effort)


def findings(cls):
    subject = Subject(cls.card.name, "a", cls.randomized, cls.base is not None, tuple(cls.stand_ins), cls.exact)
    return {f.check: f for f in audit(Stored(subject, THREAT, (1, 8, 8)), probed(cls))}


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.card.name)
def test_a_broken_defense_is_found_out_for_the_right_reason(cls):
    found = findings(cls)
    for check, least in EXPECTED[cls].items():
        bad = (Verdict.FAIL,) if least == "FAIL" else (Verdict.FAIL, Verdict.WARN)
        assert found[check].verdict in bad, found[check].sentence
    assert cls.__doc__


@pytest.mark.parametrize("cls", HONEST, ids=lambda cls: cls.card.name)
def test_an_honest_defense_is_not_accused(cls):
    found = findings(cls)
    told = summary(list(found.values()))
    assert told["integrity"] == []
    assert told["masking"] == []


def test_what_was_not_measured_is_incomplete_and_never_a_pass():
    subject = Subject("any", "a", randomized=True, purifies=True, stand_ins=("identity",))
    found = audit(Stored(subject, THREAT, (1, 8, 8)))
    assert {f.verdict for f in found} == {Verdict.INCOMPLETE}
    assert {"A6", "B1", "B2", "B12", "B18", "C2", "D5"} <= {f.check for f in found}


def test_less_effort_than_asked_for_is_incomplete():
    found = findings(HONEST[1])  # adversarially trained: something is left standing
    assert found["B3"].verdict is Verdict.INCOMPLETE
    assert "100 random points" in found["B3"].sentence
    assert found["B7"].verdict is not Verdict.PASS


def test_a_lookup_names_its_samples():
    found = findings(LookUp)["A11"]
    assert found.count == EFFORT.samples
    assert found.samples[0] == 1400
    assert "A11" in summary(list(findings(LookUp).values()))["integrity"]


def test_the_first_call_is_told_from_the_later_ones():
    assert probed(SecondTime).behaviour.first_differs
    assert not probed(UndeclaredNoise).behaviour.first_differs


def test_a_declared_draw_is_held_and_an_undeclared_one_is_not():
    assert findings(DeclaredNoise)["A6"].verdict is Verdict.PASS
    assert findings(UndeclaredNoise)["A6"].verdict is Verdict.FAIL


def test_an_audit_keeps_what_its_probes_broke_and_of_a_randomised_defence_each_draw():
    assert sorted(toll.of(probed(Detached).panel)) == ["broken"]
    kept = toll.of(probed(DeclaredNoise).panel)
    assert kept["broken"]
    assert set(map(str, kept["broken"])) <= set(kept["draws"])
    assert {len(draws) for rows in kept["draws"].values() for draws in rows} == {EFFORT.scoring_draws}


def _panel(**runs) -> Panel:
    """Ten correct samples; each run breaks the positions it is given."""
    kinds = {
        "fgsm": "one-step",
        "pgd": "iterative",
        "square": "score-based",
        "noise": "random",
        "moved": "transfer",
    }
    made = []
    for name, broken in runs.items():
        flags = np.isin(np.arange(10), broken)
        made.append(Run(kinds[name], name, flags, np.full(10, 0.2), flags))
    return Panel("probes", np.arange(10), np.ones(10, bool), tuple(made))


@pytest.mark.parametrize(
    ("check", "runs", "verdict"),
    [
        ("B1", {"pgd": [0, 1], "square": [0, 1]}, "PASS"),
        ("B1", {"pgd": [0, 1], "square": [5]}, "WARN"),
        ("B1", {"pgd": [0, 1], "square": [5, 6]}, "FAIL"),
        ("B2", {"pgd": [0], "moved": [3, 4]}, "FAIL"),
        ("B3", {"pgd": [0], "noise": [3]}, "WARN"),
        ("B3", {"square": [0]}, "INCOMPLETE"),
        ("B4", {"fgsm": [0, 1, 2], "pgd": [0, 1]}, "FAIL"),
        ("B4", {"fgsm": [0, 1, 2], "pgd": [0, 1, 3]}, "WARN"),
        ("B4", {"fgsm": [0, 1, 2], "pgd": [0, 1, 2]}, "WARN"),
        ("B4", {"fgsm": [0, 1], "pgd": [0, 1, 2]}, "PASS"),
    ],
)
def test_per_sample_flags_decide(check, runs, verdict):
    probes = replace(probed(Wrapped), panel=_panel(**runs))
    finding = by_id(check)(Case(Stored(Subject("x", "a"), THREAT, (1, 8, 8)), probes))
    assert finding.verdict == verdict, finding.sentence


def test_a_search_too_short_to_cross_the_ball_is_incomplete_and_no_masking():
    panel = _panel(fgsm=[0, 1, 2], pgd=[0, 1])
    short = replace(panel, runs=tuple(replace(run, reaches=False) for run in panel.runs))
    for given, verdict in ((panel, "FAIL"), (short, "INCOMPLETE")):
        probes = replace(probed(Wrapped), panel=given)
        assert by_id("B4")(Case(Stored(Subject("x", "a"), THREAT, (1, 8, 8)), probes)).verdict == verdict
    assert _reaches({"steps": 40, "step": 1 / 30})
    assert not _reaches({"steps": 10, "step": 1 / 30})


@pytest.mark.parametrize(("fell", "verdict"), [([], "PASS"), ([3], "WARN"), ([3, 4], "FAIL")])
def test_probes_that_break_more_than_the_store_fail_the_evaluation(fell, verdict):
    still = np.zeros((10, 1), np.int64)
    stored = _stored(label=np.zeros(10, np.int64), clean=still, adversarial=still)
    stored = replace(stored, cells=stored.cells[:1])
    finding = by_id("B22")(Case(stored, replace(probed(Wrapped), panel=_panel(pgd=fell))))
    assert finding.verdict == verdict, finding.sentence
    assert finding.samples == tuple(fell)


@pytest.mark.parametrize(("families", "verdict"), [((), "WARN"), (("minimum norm",), "PASS")])
def test_who_asks_outside_the_ball_may_see_errors_that_it_does_not_return(families, verdict):
    still = np.zeros((10, 1), np.int64)
    stored = _stored(label=np.zeros(10, np.int64), clean=still, adversarial=still, first_success=np.arange(10))
    pgd = stored.cells[0]
    cell = replace(pgd.cell, nature=Nature("decision-based", families=families))
    stored = replace(stored, cells=(replace(pgd, cell=cell),))
    assert verdicts(stored)["B8"] == verdict


def _stored(**changes) -> Stored:
    """Ten samples, attacked by PGD and FGSM; `changes` replace fields of the outcome of PGD."""
    samples = SampleList("digits", "test", tuple(range(10)), "digest")
    cells = []
    access = Access.WHITE_BOX
    for name, kind in (("pgd", "iterative"), ("fgsm", "one-step")):
        cell = replace(
            CELL, attack=Spec(name, {"steps": 40}, "x"), access=access, view=ViewSpec("a"), threat=THREAT,
            samples=samples, nature=Nature(kind, climbs=("cross-entropy",)),
        )  # fmt: skip
        result = replace(outcome(cell, range(10)), linf=np.full(10, THREAT.epsilon))
        if name == "pgd":
            result = replace(result, **changes)
        cells.append(Evidence(cell, result, "done"))
    return Stored(Subject("x", "a", recipe={"attack_steps": 5}), THREAT, (1, 8, 8), tuple(cells))


def verdicts(stored: Stored) -> dict[str, str]:
    return {f.check: str(f.verdict) for f in audit(stored)}


def test_a_stored_image_outside_the_ball_fails():
    assert verdicts(_stored())["A1"] == "PASS"
    assert verdicts(_stored(linf=np.full(10, THREAT.epsilon + 1e-5)))["A1"] == "FAIL"
    assert verdicts(_stored(linf=np.full(10, np.nan)))["A1"] == "FAIL"


def test_a_sample_counted_twice_fails():
    assert verdicts(_stored())["A2"] == "PASS"
    assert verdicts(_stored(position=np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])))["A2"] == "FAIL"


def test_images_that_are_classified_otherwise_now_fail():
    again = Rescored("key", "pgd", 10, (), (), (), (1, 8, 8))
    assert verdicts(replace(_stored(), rescored=(again,)))["A3"] == "PASS"
    assert verdicts(replace(_stored(), rescored=(replace(again, differ=(3, 4, 7)),)))["A3"] == "FAIL"
    # Rounding decides one at the very border, and again in every cell that keeps it.
    assert verdicts(replace(_stored(), rescored=(replace(again, differ=(3,)),)))["A3"] == "WARN"
    many = replace(again, asked=120, differ=(3, 4))
    assert verdicts(replace(_stored(), rescored=(many,)))["A3"] == "WARN"
    assert verdicts(replace(_stored(), rescored=(many,) * 4))["A3"] == "WARN"
    assert verdicts(replace(_stored(), rescored=(replace(many, differ=tuple(range(6))),)))["A3"] == "FAIL"
    assert verdicts(replace(_stored(), rescored=(replace(again, shape=(3, 64, 64)),)))["A4"] == "FAIL"


def test_the_list_of_attacks_is_judged():
    found = verdicts(_stored())
    assert found["C1"] == found["C7"] == found["C8"] == "INCOMPLETE"
    assert found["C6"] == "WARN"  # trained on PGD, attacked with PGD
    assert found["D1"] == "INCOMPLETE"  # ten samples
    assert found["D8"] == "PASS"


def test_ids_are_unique_and_every_threshold_has_a_reason():
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    assert all(check.family in "ABCD" for check in CHECKS)
    assert all(value.reason for value in table().values())


def test_the_documents_say_what_the_checks_say():
    text = (DOCS / "evaluation.md").read_text()
    for check in CHECKS:
        assert line(check) in text, f"docs/evaluation.md lacks the line of {check.id}; run tests/audit_fixtures.py"
    for name, value in table().items():
        assert f"`{name}` | {float(value):.6g} |" in text
    assert not re.search(r"\bTODO\b", text)


def line(check) -> str:
    """A check's line in docs/evaluation.md."""
    cells = (check.id, check.name, check.formula, check.threshold, check.source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def test_an_audit_inside_another_ball_says_nothing_of_a_table():
    from benchbox.analysis import leaderboard
    from benchbox.analysis.background import Background

    cells = _stored().cells
    (artifact,) = {cell.cell.artifact for cell in cells}

    def badge(epsilon):
        told = {"counts": {}, "integrity": ["A2"], "masking": [], "attack": []}
        record = {"summary": told, "threat": {"norm": "linf", "epsilon": epsilon}}
        (only,) = leaderboard.build(cells, Background(audits={artifact: record}))[0].rows
        return only.rank, str(only.badge)

    assert badge(THREAT.epsilon) == (None, "withdrawn A2")
    assert badge(0.1) == (1, "not audited")


def test_the_command_audits_stores_and_prints(tmp_path, capsys):
    import json

    from benchbox.cli import main
    from benchbox.store import Store

    store = str(tmp_path / "results.sqlite")
    common = ["--dataset", "digits", "--set", "none.epochs=2", "--samples", "20", "--store", store, "--quiet"]
    assert main(["run", "--defense", "none", "--attacks", "fgsm,noise", "--access", "white-box", *common]) == 0
    capsys.readouterr()
    words = ["audit", "none", "--steps", "5", "--random-points", "3", "--whole", "--format", "json", *common]
    assert main(words) == 0
    out = capsys.readouterr()
    record = json.loads(out.out)
    found = {finding["check"]: finding for finding in record["findings"]}
    assert "20 images, " in out.err
    assert "if nothing else runs here" in out.err
    for check in ("A1", "A2", "A3", "A4", "A9"):
        assert found[check]["verdict"] == "PASS", found[check]["sentence"]
    assert "40 images" in found["A3"]["sentence"]
    with Store.open(store) as opened:
        assert opened.attached(record["artifact"], "audit") == record
    assert date.fromisoformat(record["date"])

    # Results may lie elsewhere, as those of a published row do; the record stays here. What is left out is probes.
    other = str(tmp_path / "other.sqlite")
    whole, words = words, [*(word for word in words if word != "--whole"), "--budget", "1s"]
    for beside, verdict in (([], "INCOMPLETE"), (["--beside", store], "PASS")):
        assert main([other if word == store else word for word in words] + beside) == 0
        found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
        assert found["A2"]["verdict"] == verdict

    # What another defence had crafted on this classifier is another making than what the file tells of.
    elsewhere = [other if word == store else word for word in common]
    assert main(["run", "--defense", "jpeg", "--attacks", "fgsm", "--access", "gray-box", *elsewhere]) == 0
    capsys.readouterr()
    assert main([other if word == store else word for word in words] + ["--beside", store]) == 0
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found["A3"]["sentence"] == "no stored adversarial image was classified again"

    # Images of a list that shares none with the stored one have nothing to be scored again.
    assert main([*words, "--sample-seed", "0"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert not {*range(20)} & {*record["samples"]["indices"]}
    found = {finding["check"]: finding for finding in record["findings"]}
    assert found["A3"]["verdict"] == "INCOMPLETE"

    # What takes too long is cut down, and said: nothing is refused.
    fewer = [word for word in whole if word != "--whole"] + ["--sample-seed", "0", "--budget"]
    assert main([*fewer, "0.001s"]) == 0
    out = capsys.readouterr()
    assert "it is cut down: " in out.err
    assert "none of 7 other radii" in out.err
    less = json.loads(out.out)
    n = less["effort"]["samples"]
    assert 1 <= n <= 5
    both = min(n, len(record["samples"]["indices"]))  # each of them was cut to what the machine gave just then
    assert less["samples"]["indices"][:both] == record["samples"]["indices"][:both]
    found = {finding["check"]: finding for finding in less["findings"]}
    assert found["B5"]["sentence"].startswith("left out: it would take ")
    assert {found[check]["verdict"] for check in ("A5", "A6", "A13", "B7", "B11")} == {"INCOMPLETE"}
    assert main([*fewer, "20images"]) == 2
    assert "--budget '20images' is no time; write 60s, 15min or 2h" in capsys.readouterr().err
