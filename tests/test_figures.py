"""Figures of results: what they show, that nothing is cut off, and that equal results give equal files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Said, refusal
from rows import BPDA, GRAY, SAMPLES, TRANSFER, WHITE, N, evidence, first, unfinished

from benchbox.analysis import curves, leaderboard, weights
from benchbox.analysis.survival import Survival, claim, survivals
from benchbox.cli.figures import STORED, TRAINED
from benchbox.domain import Evidence, ThreatModel, ViewSpec
from benchbox.engine.publish import publish
from benchbox.errors import RequestError
from benchbox.figures import curve, style, survival
from benchbox.store import Store


def claimed() -> list[Evidence]:
    """PSSR as it is: what is claimed stands under gray-box, and falls under white-box."""
    return [
        evidence("pssr", GRAY, "pgd", 96, clean=97),
        evidence("pssr", TRANSFER, "fgsm", 77, clean=97),
        evidence("pssr", WHITE, "pgd", 0, clean=97),
        evidence("pssr", WHITE, "fgsm", 12, clean=97),
        evidence("pssr", BPDA, "pgd", 28, clean=97, stand_in="identity-purifier"),
        evidence("pssr", BPDA, "pgd", 0, clean=97),
        unfinished(evidence("pssr", WHITE, "aa", 0, clean=97), 30),
    ]


def only(items: list[Evidence]) -> Survival:
    (found,) = survivals(leaderboard.build(items))
    return found


def published(items: list[Evidence]) -> str:
    store = Store.open(":memory:")
    run = store.begin_run({}, {})
    for item in items:
        store.add_cell(item.cell, run)
        store.commit_batch(item.cell, item.outcome, seconds=1)
    return publish(store.evidence(), store)


def texts(drawing: style.Drawing) -> list[Any]:
    (axes,) = drawing.figure.axes
    return [
        axes.title,
        axes._left_title,
        axes.xaxis.label,
        *axes.texts,
        *axes.get_yticklabels(),
        *axes.get_xticklabels(),
    ]


def test_the_claim_and_what_is_left_of_it() -> None:
    found = only(claimed())
    assert [(str(dot.access), dot.name, round(dot.score.percent, 6)) for dot in found.dots] == [
        ("white-box", "fgsm", 12),
        ("white-box", "pgd", 0),
        ("bpda", "pgd, exact", 0),
        ("bpda", "pgd, identity-purifier", 28),
        ("transfer", "fgsm", 77),
        ("gray-box", "pgd", 96),
    ]
    assert found.claim is not None
    assert (found.claim.table, found.claim.column, found.claim.percent) == ("Table 1", "aa", 98.69)
    assert found.worst is not None
    assert found.worst.score.percent == 0
    assert found.clean is not None
    assert found.clean.score.percent == 97


def test_claims_of_other_papers() -> None:
    found = claim("cifar10", "carso", ThreatModel("linf", 8 / 255))
    assert found is not None
    assert (found.percent, found.source) == (76.13, "arXiv 2306.06081")
    assert claim("mnist", "carso", ThreatModel("linf", 0.3)) is None


def test_accesses_stand_in_the_order_of_what_is_known() -> None:
    with style.style():
        drawing = survival.draw(only(claimed()))
    (axes,) = drawing.figure.axes
    said = [text.get_text().partition(":")[0] for text in axes.texts]
    assert [name for name in said if name in map(str, survival.MEANINGS)] == [
        "white-box",
        "bpda",
        "transfer",
        "gray-box",
    ]
    assert "arXiv 2402.00304" in said
    assert any("0.0 [0.0, 3.6]" in text.get_text() for text in axes.texts)


@pytest.mark.parametrize(
    "label", ["pssr", "pssr (alpha=0.9, attack_steps=10, epochs=5, threshold=sample, seed 2)"]
)
def test_nothing_is_cut_off_and_no_two_words_lie_on_each_other(label: str) -> None:
    with style.style():
        drawing = survival.draw(replace(only(claimed()), label=label))
        drawing.figure.draw_without_rendering()
        boxes = [(t.get_text(), t.get_window_extent()) for t in texts(drawing) if t.get_text()]
        whole = drawing.figure.bbox
    for said, box in boxes:
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, said
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, said
    for i, (said, box) in enumerate(boxes):
        for other, there in boxes[i + 1 :]:
            assert not box.shrunk(0.9, 0.8).overlaps(there.shrunk(0.9, 0.8)), (said, other)


def test_a_defence_without_claim_and_one_with_several_trainings() -> None:
    cells = [
        evidence(
            "mine", WHITE, "pgd", 90 + seed, training_seed=seed, artifact=f"w{seed}", view=ViewSpec(f"w{seed}")
        )
        for seed in range(3)
    ]
    found = only(cells)
    assert (found.claim, found.seeds, len(found.dots)) == (None, (0, 1, 2), 3)
    assert found.worst is not None
    assert found.worst.score.percent == 90
    with style.style():
        drawing = survival.draw(found)
    said = [text.get_text() for text in texts(drawing)]
    assert "What mine survives" in said
    assert "90.0 to 92.0" in said
    assert "prints no number" in " ".join(drawing.caption)


def test_what_is_withheld_is_not_shown() -> None:
    def drawn(attack: str, right: int) -> Evidence:
        return evidence("mine", WHITE, attack, np.repeat(first(right), 2, 1), clean=97)

    assert only([drawn("pgd", 50), drawn("null", 97)]).dots
    cells = [drawn("pgd", 50), drawn("null", 10)]
    assert list(survivals(leaderboard.build(cells))) == []


def test_equal_results_give_equal_files(tmp_path: Path) -> None:
    found = only(claimed()[:1])
    for folder in ("one", "two"):
        with style.style():
            style.save(survival.draw(found), tmp_path / folder, "benchbox figures")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert [name.rpartition(".")[2] for name in names] == ["pdf", "png", "svg", "txt"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    note = (tmp_path / "one" / names[-1]).read_text("utf-8")
    assert "n = 100 images, training seed 0, attack seed 0." in note
    assert note.endswith("Made by: benchbox figures\n")


def in_ball(epsilon: float, right: int, attack: str = "pgd", name: str = "pssr") -> Evidence:
    return evidence(name, WHITE, attack, right, clean=98, threat=ThreatModel("linf", epsilon))


def test_a_curve_begins_clean_and_compares_balls_that_were_attacked_alike() -> None:
    cells = [in_ball(e, r, a) for e, r in ((0.1, 90), (0.3, 40)) for a in ("pgd", "aa")]
    cells += [in_ball(0.2, 80, "pgd"), in_ball(0.3, 10, "pgd", "none")]
    (found,) = curves.over_epsilon(cells)
    (line,) = found.lines  # none was attacked in one ball alone, and 0.2 by one attack of two
    assert [(point.x, round(point.score.percent, 6)) for point in line.points] == [(0, 98), (0.1, 90), (0.3, 40)]
    (alone,) = curves.over_epsilon(cells, attacks=["pgd"])
    assert [point.x for point in alone.lines[0].points] == [0, 0.1, 0.2, 0.3]
    with pytest.raises(RequestError, match="in two balls"):
        curves.over_epsilon(cells, attacks=["fgsm"])
    with style.style():
        drawing = curve.draw(found, "epsilon")
    assert "L∞ ε = 0.1, 0.2, 0.3" in drawing.caption[0]


def test_a_curve_over_a_field_has_a_line_for_each_attack() -> None:
    cells = [
        evidence("pssr:ps", GRAY, attack, right, arguments={"alpha": alpha})
        for alpha, right in ((0.9, 30), (1.5, 50), (2.0, 40))
        for attack in ("pgd", "cw")
    ]
    (found,) = curves.over_field(cells, "alpha")
    assert [line.label for line in found.lines] == ["cw, gray-box", "pgd, gray-box"]
    assert [(point.x, round(point.score.percent, 6)) for point in found.lines[0].points] == [
        (0.9, 30),
        (1.5, 50),
        (2.0, 40),
    ]
    with pytest.raises(RequestError, match="two values of 'passes'"):
        curves.over_field(cells, "passes")


def half(shift: int) -> np.ndarray:
    """(N, 1): half of the images are right, from one of them on."""
    right: np.ndarray = ((np.arange(N) - shift) % N < N // 2)[:, None]
    return right


def drawn(found: list[curves.Curves]) -> dict[str, list[tuple[float, float]]]:
    """The points of every line."""
    return {line.label: [(x, score.percent) for x, score in line.points] for one in found for line in one.lines}


def trained(alpha: float, seed: int, base: str = "") -> Evidence:
    cell = {"training_seed": seed, "artifact": f"{alpha} of {seed}{base}"}
    shift = 25 * seed + 50 * bool(base)
    return evidence("pssr", GRAY, right=half(shift), clean=100, arguments={"alpha": alpha}, **cell)


def test_what_falls_in_one_training_has_not_fallen_in_another() -> None:
    seeds = [trained(alpha, seed) for seed in range(3) for alpha in (1.0, 2.0)]
    there = [(1.0, 50.0), (2.0, 50.0)]
    assert drawn(curves.over_field(seeds, "alpha")) == {f"pgd, gray-box (seed {n})": there for n in range(3)}
    both = [trained(alpha, 0, base) for base in ("", " again") for alpha in (1.0, 2.0)]
    cards = {e.cell.artifact: {"training": {"base": {"seed": e.cell.artifact[8:]}}} for e in both}
    names = [f"base {weights.base(e.cell.artifact, cards)[:8]}" for e in both]
    assert drawn(curves.over_field(both, "alpha", cards=cards)) == {
        f"pgd, gray-box ({name})": there for name in names
    }
    with pytest.raises(RequestError, match="two values of 'alpha'"):
        curves.over_field(both, "alpha")


def test_trainings_that_differ_in_their_weights_alone_have_lines_of_their_own() -> None:
    cells = [
        evidence("pgd-at", right=half(shift), clean=100, artifact=name, threat=ThreatModel("linf", epsilon))
        for name, shift in (("one", 0), ("other", 50))
        for epsilon in (0.1, 0.3)
    ]
    there = [(0.0, 100.0), (0.1, 50.0), (0.3, 50.0)]
    found = drawn(curves.over_epsilon(cells))
    assert found == {"pgd-at (weights one)": there, "pgd-at (weights other)": there}
    assert drawn(curves.over_epsilon(cells[:2])) == {"pgd-at": there}


def test_the_command_draws_from_a_file_and_loads_no_torch(workspace: Path, said: Said) -> None:
    Path("mine.json").write_text(published(claimed()[:3]), "utf-8")
    words = ["figures", "--store", "mine.json", "--formats", "svg", "-o", "out"]
    code = f"import sys; from benchbox.cli import main; main({words!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "out/survives-mnist-linf-0.3-pssr.svg",
        "out/survives-mnist-linf-0.3-pssr.txt",
        "False",
    ]
    note = Path("out/survives-mnist-linf-0.3-pssr.txt").read_text("utf-8")
    assert note.endswith("Made by: benchbox figures survives --store mine.json\n")
    assert "did you mean epsilon" in refusal(said("figures", "epsilom", "--store", "mine.json"))
    assert "holds nothing of jpeg" in refusal(said("figures", "--store", "mine.json", "--defense", "jpeg"))
    assert "unknown format 'gif'" in refusal(said("figures", "--store", "mine.json", "--formats", "gif"))


def test_two_lists_of_images_are_two_files(workspace: Path, said: Said) -> None:
    few = replace(SAMPLES, indices=SAMPLES.indices[:30], digest="few")
    items = [
        evidence("none", WHITE, "pgd", 5),
        evidence("none", WHITE, "pgd", first(9, 30), clean=first(30, 30), samples=few),
    ]
    Path("mine.json").write_text(published(items), "utf-8")
    out = said("figures", "--store", "mine.json", "--formats", "svg", "-o", "out")[1]
    name = "survives-mnist-linf-0.3-none"
    assert sorted(out.splitlines()) == sorted(f"out/{name}{n}.{end}" for n in ("", "-2") for end in ("svg", "txt"))
    # The longer list has the plain name, in whatever order they come.
    assert "n = 100" in Path(f"out/{name}.txt").read_text("utf-8")
    assert "n = 30" in Path(f"out/{name}-2.txt").read_text("utf-8")


def test_every_figure_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "figures.md").read_text("utf-8")
    for name in [*STORED, *TRAINED]:
        assert f"| `{name}` |" in page
