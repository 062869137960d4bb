"""The badge of an audit stands beside every number, in every format."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rows import BPDA, CHROMIUM, GRAY, SAMPLES, THREAT, WHITE, evidence, first, rendered, small_print

from benchbox import report
from benchbox.analysis import leaderboard
from benchbox.analysis.background import Background
from benchbox.analysis.badge import badge
from benchbox.analysis.worth import worth

TEXT = ("terminal", "markdown", "html", "latex", "csv", "json")
#: What each kind of finding makes of a badge.
STATES = {
    "pass": {},
    "incomplete (1 checks)": {"INCOMPLETE": ["C8"]},
    "2 WARN B6 C3": {"WARN": ["B6", "C3"], "INCOMPLETE": ["C8"]},
    "weak attack B7": {"FAIL": ["B7"], "WARN": ["C3"]},
    "masking B1 B3": {"FAIL": ["B1", "B3", "B7"]},
    "withdrawn A2": {"FAIL": ["A2", "B1"]},
}


def record(**verdicts: list[str]) -> dict[str, Any]:
    """An audit's record with these verdicts, by check."""
    findings = [
        {"check": id, "verdict": verdict, "sentence": f"{id} saw 50 % & <i>"}
        for verdict, ids in verdicts.items()
        for id in ids
    ]
    failed = verdicts.get("FAIL", [])
    masking = [id for id in failed if id in ("A5", "B1", "B3")]
    summary = {
        "counts": {verdict: len(ids) for verdict, ids in verdicts.items()},
        "integrity": [id for id in failed if id[0] == "A"],
        "masking": masking,
        "attack": [id for id in failed if id[0] == "B" and id not in masking],
    }
    said = ["set by white-box pgd"]
    return {"summary": summary, "findings": findings, "threat": vars(THREAT), "standing": {"said": said}}


def cells() -> list[Any]:
    """Three defences; the names tell what their audits will say."""
    return [evidence(name, WHITE, "pgd", k) for name, k in (("good", 60), ("masked", 70), ("broken", 90))] + [
        evidence("pure", access, "pgd", 40) for access in (GRAY, WHITE, BPDA)
    ]


def audits() -> dict[str, dict[str, Any]]:
    found = {"good": record(WARN=["B6"]), "masked": record(FAIL=["B1", "B3"]), "broken": record(FAIL=["A2"])}
    return {
        item.cell.artifact: found[item.cell.defense.name] for item in cells() if item.cell.defense.name in found
    }


def shown(format: str, **options: Any) -> str:
    if format != "terminal":
        return rendered(cells(), format, Background(audits=audits()), **options)
    console = Console(width=160, record=True, file=io.StringIO(), color_system=None)
    console.print(report.renderable(report.tabulate(cells(), Background(audits=audits()), **options)))
    return console.export_text()


@pytest.mark.parametrize(("text", "verdicts"), STATES.items())
def test_the_worst_finding_makes_the_badge(text: str, verdicts: dict[str, list[str]]) -> None:
    assert str(badge(record(**verdicts))) == text


def test_no_audit_is_said_and_not_left_blank() -> None:
    assert str(badge(None)) == "not audited"
    assert all(str(row.badge) == "not audited" for row in leaderboard.build(cells())[0].rows)


@pytest.mark.parametrize("format", TEXT)
@pytest.mark.parametrize("options", [{}, {"against": "good"}], ids=["alone", "against"])
def test_every_format_shows_every_badge(format: str, options: dict[str, str]) -> None:
    text = shown(format, **options)
    if format == "csv":
        lines = list(csv.DictReader(io.StringIO(text)))
        told = {line["defense"]: f"{line['audit']} {line['audit_checks']}".strip() for line in lines}
        expected = {
            "good": "warned B6",
            "masked": "masking B1 B3",
            "broken": "withdrawn A2",
            "pure": "not audited",
        }
        assert told == expected
    elif format == "json":
        rows = {row["label"]: row["audit"] for row in json.loads(text)["tables"][0]["rows"]}
        assert (rows["masked"]["state"], rows["masked"]["checks"]) == ("masking", ["B1", "B3"])
        assert rows["masked"]["sentences"]["B1"] == "B1 saw 50 % & <i>"
        assert rows["pure"]["state"] == "not audited"
    else:
        for said in ("1 WARN B6", "masking B1 B3", "withdrawn A2", "not audited"):
            assert said in text, said


def test_what_is_withdrawn_has_no_rank_and_what_is_masked_has_one_and_a_mark() -> None:
    rows = {row.label: row for row in leaderboard.build(cells(), Background(audits=audits()))[0].rows}
    assert rows["broken"].rank is None
    assert rows["masked"].rank == 1
    assert rows["masked"].headline.endswith("‡")
    assert "‡" not in rows["good"].headline
    # The failing check's sentence is in the small print, and that of a warning is not.
    remarks = small_print(leaderboard.build(cells(), Background(audits=audits()))[0])
    assert any(remark.startswith("masked, B1: B1 saw") for remark in remarks)
    assert not any("B6 saw" in remark for remark in remarks)


def test_a_purifier_is_told_what_sets_its_number() -> None:
    pure = cells()[3:]
    (found,) = leaderboard.build(pure, Background(audits={pure[0].cell.artifact: record()}))
    assert "pure: set by white-box pgd." in small_print(found)
    assert str(found.rows[0].set_by) == "white-box pgd"  # gray-box and bpda leave as much, and know less


def test_what_was_stored_after_the_audit_is_told_too() -> None:
    before = [evidence("none", WHITE, "pgd", 10, artifact="base"), *cells()[3:]]
    audit = record()
    audit["standing"] = worth(before[1:], before[:1])
    known = Background(audits={before[1].cell.artifact: audit})
    assert "pure: 40.0 % [30.3, 50.3] of 100 images are robust; " in " ".join(told(before, known))
    after = told([*before, evidence("pure", WHITE, "aa", 15)], known)
    assert any(line.startswith("pure: 15.0 %") and "white-box aa sets the number" in line for line in after)
    assert any("gain over the bare classifier (none): +5.0 points" in line for line in after)


def told(items: list[Any], known: Background) -> list[str]:
    return list(small_print(leaderboard.build(items, known)[0]))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("options", [{}, {"against": "pure"}], ids=["alone", "against"])
def test_latex_with_badges_compiles(tmp_path: Any, options: dict[str, str]) -> None:
    (tmp_path / "table.tex").write_text(shown("latex", standalone=True, **options), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_the_badges(tmp_path: Any) -> None:
    page = tmp_path / "report.html"
    page.write_text(shown("html", against="pure"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for tone, said in (("bad strong", "withdrawn A2"), ("bad", "masking B1 B3"), ("doubt", "1 WARN B6")):
        assert f'<span class="badge {tone}"' in done.stdout
        assert f">{said}</span>" in done.stdout
    assert 'title="set by white-box pgd\nB1: B1 saw 50 % &amp; &lt;i&gt;' in done.stdout.replace(
        "<i>", "&lt;i&gt;"
    )


def test_a_wide_interval_gives_a_group_and_no_place() -> None:
    # 60 of 100 is ± 9.9 points, 990 of 1000 is ± 0.7.
    (wide,) = leaderboard.build([evidence("good", WHITE, "pgd", 60)])[0].rows
    assert (wide.rank, wide.place) == (1, "≈1")
    samples = replace(SAMPLES, indices=tuple(range(1000)))
    (narrow,) = leaderboard.build(
        [evidence("good", WHITE, "pgd", first(990, 1000), clean=first(1000, 1000), samples=samples)]
    )[0].rows
    assert narrow.place == "1"


def trained(name: str, *robust: int) -> list[Any]:
    """The same recipe with seeds 0, 1, …; each as robust as it is said."""
    made = [evidence(name, WHITE, "pgd", k, training_seed=seed) for seed, k in enumerate(robust)]
    return [replace(e, cell=replace(e.cell, artifact=f"{name}{e.cell.training_seed}")) for e in made]


def test_several_trainings_are_summed_up_with_the_seed_as_the_unit() -> None:
    found = leaderboard.build([*trained("a", 50, 52, 54), *trained("b", 70, 72, 74)], against="a")[0]
    # Both sides have standard deviation 2, so t = 20 / sqrt(8 / 3) = 12.2 with 4 degrees of freedom.
    assert any(
        said.startswith(
            "b over 3 training seeds: robust 72.0 on average, standard deviation 2.0, lowest 70.0; +20.0"
        )
        and said.endswith("to a with the training as the unit, significant (Welch's t, p = 0.00026).")
        for said in small_print(found)
    )
    assert found.against == "a (mean of 3 trainings)"
    versus = {row.label: row.versus for row in found.rows}
    assert versus["a (seed 0)"] is None
    assert versus["b (seed 0)"] is not None
    assert versus["b (seed 0)"].difference == pytest.approx(18)
    summed = json.loads(rendered(trained("a", 50, 52, 54), "json"))["tables"][0]["trainings"]
    assert summed == [{"label": "a", "training_seeds": [0, 1, 2], "mean": 52.0, "sd": 2.0, "min": 50.0}]


def test_two_trainings_say_nothing_of_their_spread() -> None:
    remarks = small_print(leaderboard.build([*trained("a", 50, 52), *trained("b", 70, 72)], against="a")[0])
    assert any("b over 2 training seeds" in said and "fewer than 3" in said for said in remarks)
