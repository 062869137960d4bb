"""[certified, attacked]: the row that proves something, and the row whose proof is wrong, in every format."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rows import (
    BPDA,
    SAMPLES,
    THREAT,
    WHITE,
    N,
    evidence,
    first,
    footnotes,
    only,
    rendered,
    row,
    small_print,
    unfinished,
)

from benchbox.analysis import leaderboard
from benchbox.analysis.background import Background
from benchbox.analysis.certificate import certificate
from benchbox.analysis.difference import compare_runs
from benchbox.analysis.intervals import clopper_pearson
from benchbox.audit import Stored, Subject, Verdict, audit
from benchbox.domain import Evidence, ThreatModel
from benchbox.report import attacks, difference
from benchbox.report.terminal import render
from benchbox.store import Store


def proving(item: Evidence, k: int) -> Evidence:
    """A cell of a defence that proves its first k images."""
    n = len(item.outcome)
    return replace(item, outcome=replace(item.outcome, certified=np.arange(n) < k))


HONEST = [proving(evidence("ibp", attack=name, right=k), 42) for name, k in (("pgd", 50), ("fgsm", 70))]
PLAIN = evidence("none", right=0)


def test_the_bound_is_the_share_of_all_images_with_its_interval() -> None:
    found = row(only(HONEST), "ibp")
    assert found.certificate is not None
    assert found.certificate.bound is not None
    assert found.certificate.bound.percent == 42
    assert (found.certificate.bound.low, found.certificate.bound.high) == tuple(
        100 * end for end in clopper_pearson(42, N)
    )
    assert found.robust is not None
    assert found.robust.percent == 50
    silent = [replace(e, outcome=replace(e.outcome, certified=None)) for e in HONEST]
    assert found.rank == row(only(silent), "ibp").rank


def test_what_two_cells_disagree_about_is_not_counted() -> None:
    found = certificate([HONEST[0], proving(HONEST[1], 41)])
    assert found is not None
    assert found.bound is not None
    assert found.bound.percent == 41


def test_old_cells_beside_say_nothing() -> None:
    found = certificate([HONEST[0], evidence("ibp", attack="cw", right=48)])
    assert found is not None
    assert found.bound is not None
    assert found.bound.percent == 42
    assert certificate([PLAIN]) is None


def test_a_cell_on_its_way_gives_no_bound_yet_and_refutes_already() -> None:
    part = certificate([unfinished(HONEST[0], 20)])
    assert part is not None
    assert (part.bound, part.status, part.refuted) == (None, "partial", ())
    at = np.array([40, 3, 7])
    broken = evidence("ibp", attack="cw", right=but(7))
    beside = replace(broken, outcome=broken.outcome.rows(at), status="partial")
    found = certificate([HONEST[0], beside])
    assert found is not None
    assert (found.bound, found.refuted, found.fell_to) == (None, (7,), ("white-box cw",))


def but(image: int) -> np.ndarray:
    """(N, 1): all but one are right."""
    right: np.ndarray = (np.arange(N) != image)[:, None]
    return right


def draws(*wrong: tuple[int, int]) -> np.ndarray:
    right = np.ones((N, 3), bool)
    for image, draw in wrong:
        right[image, draw] = False
    return right


@pytest.mark.parametrize(
    ("cells", "refuted", "fell_to"),
    [
        ([HONEST[0], evidence("ibp", attack="cw", right=41)], (41,), ("white-box cw",)),
        ([HONEST[0], proving(evidence("ibp", attack="cw", right=40), 40)], (40, 41), ("white-box cw",)),
        ([proving(evidence("ibp", right=draws((4, 2)), clean=draws()), 42)], (4,), ("white-box pgd",)),
        ([proving(evidence("ibp", right=draws(), clean=draws((5, 1))), 42)], (5,), ("white-box pgd",)),
        ([HONEST[0], evidence("ibp", attack="null", right=but(9))], (9,), ("white-box null",)),
    ],
    ids=["attack", "its own cell", "a draw", "a clean draw", "the control"],
)
def test_one_proven_image_that_falls_refutes_the_whole(cells, refuted, fell_to) -> None:
    found = certificate(cells)
    assert found is not None
    assert (found.bound, found.status, found.refuted, found.fell_to) == (None, "refuted", refuted, fell_to)


def harmless(**cell: object) -> Evidence:
    """A cell that breaks nothing, of the same attack as the first honest one."""
    return evidence("ibp", right=99, **cell)


@pytest.mark.parametrize(
    "beside",
    [
        {"attack_seed": 1},
        {"settings": {"steps": 7}},
        {"access": BPDA, "stand_in": "identity"},
        {"threat": ThreatModel("linf", 0.1)},
    ],
    ids=["seed", "settings", "stand-in", "smaller ball"],
)
@pytest.mark.parametrize("turned", [False, True])
def test_an_attack_that_broke_a_proof_once_broke_it(beside: dict[str, object], turned: bool) -> None:
    access = beside.get("access", WHITE)
    broken = proving(evidence("ibp", right=30, access=access), 42)  # type: ignore[arg-type]
    cells = [broken, harmless(**beside)]
    found = row(leaderboard.build(cells[::-1] if turned else cells)[-1], "ibp").certificate
    assert found is not None
    assert (found.status, found.refuted, found.fell_to) == ("refuted", tuple(range(30, 42)), (f"{access} pgd",))


def test_a_smaller_ball_refutes_and_neither_a_larger_one_nor_other_weights_do() -> None:
    broken = evidence("ibp", attack="cw", right=30)
    for epsilon, is_refuted in ((0.1, True), (0.4, False)):
        other = replace(broken, cell=replace(broken.cell, threat=ThreatModel("linf", epsilon)))
        tables = leaderboard.build([*HONEST, other])
        found = next(table for table in tables if table.threat == THREAT)
        assert bool(row(found, "ibp").certificate.refuted) == is_refuted  # type: ignore[union-attr]
    for change in ({"artifact": "other"}, {"threat": ThreatModel("l2", 0.1)}):
        other = replace(broken, cell=replace(broken.cell, **change))  # type: ignore[arg-type]
        tables = leaderboard.build([*HONEST, other])
        held = [r.certificate for table in tables for r in table.rows if r.certificate]
        assert [one.refuted for one in held] == [()]


def test_what_the_probes_of_an_audit_broke_refutes() -> None:
    record = {
        "threat": {"norm": "linf", "epsilon": 0.3},
        "samples": replace(SAMPLES, indices=tuple(range(20))).as_dict(),
        "broken": [3, 60],
        "summary": {"integrity": [], "masking": [], "attack": [], "counts": {}},
    }
    found = row(only(HONEST, Background(audits={HONEST[0].cell.artifact: record})), "ibp")
    assert found.certificate is not None
    assert (found.certificate.refuted, found.certificate.fell_to) == ((3,), ("probes of the audit",))


FORMATS = ("terminal", "markdown", "html", "latex", "csv", "json")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_it_only_where_there_is_something_to_say(format: str) -> None:
    with_it, without = rendered([*HONEST, PLAIN], format), rendered([PLAIN], format)
    assert "certified" in with_it.lower()
    assert "certified" not in without.lower() or format in ("html", "json")  # their style sheet, their fixed keys
    assert "42.0" in with_it
    lies = rendered([proving(HONEST[0], 60), PLAIN], format)
    assert "refuted" in lies
    assert "60.0" not in lies
    assert "42.0" not in lies


def test_machines_read_the_bound_and_its_refutation() -> None:
    lines = list(csv.DictReader(io.StringIO(rendered([*HONEST, PLAIN], "csv"))))
    (line,) = [one for one in lines if one["measure"] == "certified"]
    assert (line["defense"], line["status"], line["percent"], line["n"]) == ("ibp", "done", "42.0", "100")
    assert float(line["low"]) == pytest.approx(100 * clopper_pearson(42, N).low)
    lying = [proving(HONEST[0], 51), PLAIN]
    (line,) = [one for one in csv.DictReader(io.StringIO(rendered(lying, "csv"))) if one["measure"] == "certified"]
    assert (line["status"], line["percent"]) == ("refuted", "")
    assert "1 proven image is misclassified under white-box pgd (50)" in line["error"]
    (table,) = json.loads(rendered(lying, "json"))["tables"]
    told = {r["label"]: r["certified"] for r in table["rows"]}
    assert told["none"] is None
    assert (told["ibp"]["score"], told["ibp"]["refuted"], told["ibp"]["fell_to"]) == (
        None,
        [50],
        ["white-box pgd"],
    )
    assert any("its certificate is wrong" in remark for remark in small_print(only(lying)))
    assert not footnotes(only(lying))


def test_a_withheld_row_proves_nothing() -> None:
    shaky = [
        proving(evidence("ibp", right=np.repeat(first(60), 3, 1), clean=90), 42),
        proving(evidence("ibp", attack="null", right=np.repeat(first(50), 3, 1), clean=90), 42),
    ]
    (line,) = [o for o in csv.DictReader(io.StringIO(rendered(shaky, "csv"))) if o["measure"] == "certified"]
    assert (line["status"], line["percent"]) == ("withheld", "")
    assert "42.0" not in rendered(shaky, "markdown")


def test_the_table_of_attacks_has_a_line_for_it() -> None:
    for k, said in ((42, "42.0"), (60, "refuted")):
        document = attacks.document([only([proving(HONEST[0], k), PLAIN])])
        text = render(document)
        (line,) = [one for one in text.splitlines() if one.strip().startswith("certified")]
        assert said in line
        assert [one["percent"] for one in document.lines() if one["attack"] == "certified"] == [
            42.0 if k == 42 else ""
        ]


def test_two_runs_are_compared_in_what_they_prove() -> None:
    found = compare_runs([HONEST[0]], [proving(HONEST[0], 40)])
    (cell,) = found.cells
    assert cell.certified is not None
    assert (cell.certified.lost, cell.certified.won) == ((40, 41), ())
    assert "certified, lost (2): 40 41" in render(difference.document(found, 1, 2))
    (again,) = compare_runs([HONEST[0]], [evidence("ibp", right=50)]).cells
    assert again.certified is not None
    assert len(again.certified.lost) == 42
    (none,) = compare_runs([evidence("ibp", right=50)], [HONEST[0]]).cells
    assert none.certified is None


@pytest.mark.parametrize(
    ("cells", "verdict"),
    [
        ([PLAIN], None),
        (HONEST, Verdict.PASS),
        ([*HONEST, evidence("ibp", attack="cw", right=41)], Verdict.FAIL),
        (
            [
                *HONEST,
                *(evidence("ibp", attack="cw", right=k, attack_seed=seed) for seed, k in enumerate((41, 99))),
            ],
            Verdict.FAIL,
        ),
    ],
)
def test_the_audit_fails_a_wrong_proof(cells: list[Evidence], verdict: Verdict | None) -> None:
    subject = Subject("ibp", cells[0].cell.artifact)
    found = {f.check: f for f in audit(Stored(subject, THREAT, (1, 8, 8), tuple(cells)))}
    assert (found["A18"].verdict if "A18" in found else None) is verdict
    if verdict is Verdict.FAIL:
        assert found["A18"].samples == (41,)
        assert "1 of 42 certified images are misclassified under white-box cw" in found["A18"].sentence


def test_the_command_line_tells_an_honest_proof_from_a_false_one(workspace: Path) -> None:
    shutil.copy(Path(__file__).parent / "certified_defenses.py", workspace / "mine.py")
    words = [sys.executable, "-m", "benchbox", "run", "--dataset", "tiny"]
    words += ["--defense", "mine.py:Linear,mine.py:Lying"]
    words += ["--attacks", "fgsm", "--access", "white-box", "--epsilon", "0.29", "--quiet", "--device", "cpu"]
    done = subprocess.run(words, cwd=workspace, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with Store.open(workspace / "results" / "benchbox.sqlite") as opened:
        (linear,) = opened.evidence(defenses=["mine.py:Linear"])
        proven, left = linear.outcome.certified.mean(), linear.outcome.robust.mean()  # type: ignore[union-attr]
    assert 0 < proven <= left < 1
    assert f"{100 * proven:.1f}" in done.stdout
    assert "refuted" in done.stdout
    assert "its certificate is wrong" in " ".join(done.stdout.split())
