"""Adversarial images out and in: to the bit, the same labels in a fresh process, and nothing unchecked."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from benchbox.cli import main
from benchbox.domain import Access, Evidence, ImageSpec, SampleList, ThreatModel
from benchbox.engine import exchange
from benchbox.engine.exchange import AdversarialFile
from benchbox.errors import DataError
from benchbox.store import Store

DEFENSE = ["--defense", "none", "--dataset", "digits", "--samples", "40", "--set", "none.epochs=1"]
STORE = ["--store", "results/benchbox.sqlite", "--device", "cpu"]
LINF = ThreatModel("linf", 0.3)
SPEC = ImageSpec(1, 8, 10)
SAMPLES = SampleList("digits", "test", tuple(range(4)), "c")

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one attacked classifier, and its images as `out.safetensors`."""
    folder = tmp_path_factory.mktemp("exchange")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        attack = ["--attacks", "pgd", "--access", "white-box", "--set", "pgd.steps=5", "--quiet"]
        assert main(["run", *DEFENSE, *attack, *STORE]) == 0
        (cell,) = stored(folder)
        assert main(["export", cell.cell.key[:10], "--output", "out.safetensors", *STORE[:2]]) == 0
    return folder


@pytest.fixture(autouse=True)
def inside(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the workspace."""
    monkeypatch.chdir(workspace)


def stored(
    folder: Path, access: Access = Access.WHITE_BOX, store: str = "results/benchbox.sqlite"
) -> list[Evidence]:
    with Store.open(folder / store, must_exist=True) as opened:
        return [item for item in opened.evidence() if item.cell.access is access]


def arrays(workspace: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(workspace / "out.safetensors")
    return found


# --- out -----------------------------------------------------------------------------------------------------


def test_an_export_has_the_images_to_the_bit_and_the_record(workspace: Path) -> None:
    (evidence,) = stored(workspace)
    with Store.open(workspace / "results/benchbox.sqlite") as store:
        crafted = store.crafted(evidence.cell.craft_key, np.arange(40))
    found = arrays(workspace)
    assert crafted is not None
    assert found["x_adv"].dtype == np.float32
    assert found["x_adv"].tobytes() == crafted.x.tobytes()
    assert found["indices"].tolist() == found["positions"].tolist() == list(range(40))
    with safe_open(workspace / "out.safetensors", framework="np") as file:
        record = json.loads(file.metadata()["benchbox"])
    assert record["cell"] == json.loads(json.dumps(evidence.cell.as_dict()))
    assert record["threat"] == {"norm": "linf", "epsilon": evidence.cell.threat.epsilon}
    order = np.argsort(evidence.outcome.position)
    assert record["predictions"]["adversarial"] == evidence.outcome.adversarial[order].tolist()
    assert found["labels"].tolist() == evidence.outcome.label[order].tolist()


def test_export_refuses_what_is_not_there(said: Said) -> None:
    status, _, err = said("export", "zzzz", *STORE[:2])
    assert (status, err.count("\n")) == (2, 1)
    assert "no cells in results/benchbox.sqlite begin with 'zzzz'" in err


# --- out and in again ----------------------------------------------------------------------------------------


def test_an_export_scores_the_same_in_a_fresh_process(workspace: Path) -> None:
    # Another store over the same weights, so that nothing but the file and the weights is common.
    command = [
        "import-adversarials",
        "out.safetensors",
        *DEFENSE,
        "--store",
        "results/fresh.sqlite",
        "--device",
        "cpu",
    ]
    code = f"import sys; from benchbox.cli import main; sys.exit(main({command!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=workspace, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (before,) = stored(workspace)
    (after,) = stored(workspace, Access.IMPORTED, "results/fresh.sqlite")
    assert after.status == "done"
    assert after.cell.artifact == before.cell.artifact
    rows, again = np.argsort(before.outcome.position), np.argsort(after.outcome.position)
    for name in ("label", "clean", "adversarial", "linf", "l2"):
        np.testing.assert_array_equal(getattr(before.outcome, name)[rows], getattr(after.outcome, name)[again])
    # The attack must have done something for this to mean anything.
    assert before.outcome.robust.mean() < before.outcome.clean_correct.mean()


def test_an_import_lowers_the_worst_case_and_is_marked(said: Said, workspace: Path) -> None:
    (before,) = stored(workspace)
    clean_images = digits(40)
    # Exactly ε darker where the stored images were not: fools whom it fools, and is inside the ball.
    x = np.clip(clean_images + np.float32(0.3) * np.where(np.indices(clean_images.shape).sum(0) % 2, 1, -1), 0, 1)
    np.savez(workspace / "theirs.npz", x_adv=x.astype(np.float32).transpose(0, 2, 3, 1))
    status, out, err = said("import-adversarials", "theirs.npz", *DEFENSE, *STORE, "--origin", "checkers")
    assert status == 0, err
    assert "imported" in out
    (imported,) = [e for e in stored(workspace, Access.IMPORTED) if e.cell.attack.name == "imported:checkers"]
    assert imported.cell.attack.arguments["origin"] == "checkers"
    assert imported.cell.attack.code == "imported"
    assert imported.outcome.linf.max() <= 0.3 + 1e-6
    status, out, _ = said("report", "--format", "json", *STORE[:2])
    (row,) = json.loads(out)["tables"][0]["rows"]
    both = (
        before.outcome.robust[np.argsort(before.outcome.position)]
        * (imported.outcome.robust[np.argsort(imported.outcome.position)])
        * before.outcome.clean_correct[np.argsort(before.outcome.position)]
    )
    assert row["robust"]["score"]["percent"] == pytest.approx(100 * both.mean())
    assert {entry["access"] for entry in row["entries"]} >= {"white-box", "imported"}
    cells = [cell for entry in row["entries"] if entry["access"] == "imported" for cell in entry["cells"]]
    assert cells
    assert all(cell["passes"] is None for cell in cells)
    for format_ in ("terminal", "markdown", "latex", "html", "csv"):
        status, out, err = said("report", "--format", format_, "--output", f"page.{format_}", *STORE[:2])
        assert status == 0, err
        assert "imported" in (workspace / f"page.{format_}").read_text()


def test_the_same_file_is_scored_once(said: Said, workspace: Path) -> None:
    for _ in range(2):
        assert said("import-adversarials", "out.safetensors", *DEFENSE, *STORE)[0] == 0
    assert sum(e.cell.attack.name == "imported:out.safetensors" for e in stored(workspace, Access.IMPORTED)) == 1


def test_images_in_eight_bits_and_another_order(said: Said, workspace: Path) -> None:
    order = np.random.default_rng(0).permutation(60)
    np.savez(workspace / "bytes.npz", x_adv=(digits(60)[order] * 255).round().astype(np.uint8), indices=order)
    status, _, err = said("import-adversarials", "bytes.npz", *DEFENSE, *STORE)
    assert status == 0, err
    (found,) = [e for e in stored(workspace, Access.IMPORTED) if e.cell.attack.name == "imported:bytes.npz"]
    assert found.outcome.linf.max() == 0
    np.testing.assert_array_equal(found.outcome.adversarial, found.outcome.clean)


@pytest.mark.parametrize("kind", ["uint8", "whole levels as floats", "float64"])
def test_what_rounding_costs_is_said(said: Said, workspace: Path, kind: str) -> None:
    found = arrays(workspace)
    levels = (found["x_adv"] * 255).round()
    made = {
        "uint8": levels.astype(np.uint8),
        "whole levels as floats": (levels / 255).astype(np.float32),
        "float64": found["x_adv"].astype(np.float64),
    }
    np.savez(workspace / "rounded.npz", x_adv=made[kind], indices=found["indices"])
    status, out, err = said("import-adversarials", "rounded.npz", *DEFENSE, *STORE, "--origin", kind)
    assert status == 0, err
    how = "to the bit" if kind == "float64" else "rounded to 8 bits"
    last = out.splitlines()[-1]
    assert re.search(
        rf"the images of cell [0-9a-f]{{12}} \(.*\), {how}: [\d.]+ % robust there, [\d.]+ % here", last
    )
    (cell,) = [e for e in stored(workspace, Access.IMPORTED) if e.cell.attack.name == f"imported:{kind}"]
    assert cell.outcome.linf.max() <= cell.cell.threat.epsilon + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_half_a_grey_level_beyond_the_ball_is_rounding_and_more_is_not(norm: str) -> None:
    threat = ThreatModel(norm, 0.1)  # type: ignore[arg-type]
    x = np.full((1, 1, 8, 8), 100 / 255, np.float32)
    step = 0.1 if norm == "linf" else 0.1 / 8
    away = ((x + step) * 255).round().astype(np.float32) / np.float32(255)
    assert exchange.is_rounded(away)
    assert not exchange.is_rounded(x + np.float32(0.1))
    exchange.check(away, x, np.array([0]), threat, exchange.slack(away, threat))
    further = away + np.float32(1 / 255)
    with pytest.raises(DataError, match="outside the ball"):
        exchange.check(further, x, np.array([0]), threat, exchange.slack(further, threat))


def digits(n: int) -> np.ndarray:
    from benchbox.data.dataset import load

    x: np.ndarray = load("digits").test.batch(slice(n))[0].numpy()
    return x


# --- refusals through the command line -----------------------------------------------------------------------


def refused(said: Said, file: str, *more: str) -> str:
    status, _, err = said("import-adversarials", file, *DEFENSE, *STORE, *more)
    assert status == 2
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("suffix", ["pt", "pth", "pkl", "pickle"])
def test_a_pickle_is_never_read(said: Said, workspace: Path, suffix: str) -> None:
    (workspace / f"evil.{suffix}").write_bytes(b"never opened")
    assert "np.savez" in refused(said, f"evil.{suffix}")


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]


def test_a_pickle_under_another_name_is_not_run(said: Said, workspace: Path) -> None:
    (workspace / "renamed.npz").write_bytes(pickle.dumps(_Bomb()))
    assert "cannot be read" in refused(said, "renamed.npz")
    np.savez(workspace / "objects.npz", x_adv=np.array([_Bomb()] * 40, dtype=object))
    assert "cannot be read" in refused(said, "objects.npz")
    (workspace / "renamed.safetensors").write_bytes(pickle.dumps(_Bomb()))
    assert "cannot be read" in refused(said, "renamed.safetensors")
    assert not (workspace / "exploded").exists()


def test_an_image_outside_the_ball_is_named(said: Said, workspace: Path) -> None:
    x = digits(40)
    x[7, 0, 0, 0] += 0.25
    x[9, 0, 0, 0] += 0.5
    save_file({"x_adv": x}, workspace / "far.safetensors")
    message = refused(said, "far.safetensors", "--epsilon", "0.2")
    assert "image 9 is 0.5 from the clean one, outside the ball L∞ ε = 0.2 by 0.3" in message
    assert "2 of 40 images" in message
    assert not [e for e in stored(workspace, Access.IMPORTED) if e.cell.attack.name == "imported:far.safetensors"]


def test_too_few_images_name_the_remedy(said: Said, workspace: Path) -> None:
    np.savez(workspace / "few.npz", x_adv=digits(25))
    assert "lacks 15 of the 40 images of the list (the first is 25); score fewer with --samples 25" in refused(
        said, "few.npz"
    )


def test_labels_of_other_images_are_noticed(said: Said, workspace: Path) -> None:
    found = arrays(workspace)
    np.savez(workspace / "shifted.npz", x_adv=found["x_adv"], labels=np.roll(found["labels"], 1))
    assert "the indices are of another split or order" in refused(said, "shifted.npz")


def test_a_defence_nobody_trained_is_not_trained_by_the_way(said: Said, workspace: Path) -> None:
    assert "benchbox train --defense none --dataset digits" in refused(said, "out.safetensors", "--seeds", "7")


# --- checks, one by one --------------------------------------------------------------------------------------


def file(indices: list[int], x: np.ndarray | None = None) -> AdversarialFile:
    images = np.zeros((len(indices), 1, 8, 8), np.float32) if x is None else x
    return AdversarialFile("f", images, np.array(indices, np.int64))


def test_rows_follow_the_sample_list() -> None:
    assert exchange.rows_of(file([3, 9, 1, 0, 2]), SAMPLES, 10).tolist() == [3, 2, 4, 0]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 1, 2, 10], "index 10 is not in the test split of digits, which has 10 images"),
        ([0, 1, -2, 3], "index -2 is not in the test split"),
        ([0, 1, 2, 2], "index 2 occurs 2 times"),
        ([0, 1, 2, 4], r"lacks 1 of the 4 images of the list \(the first is 3\); score fewer with --samples 3"),
        ([1, 2, 3, 4], "add the missing images"),
    ],
)
def test_every_index_once(indices: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        exchange.rows_of(file(indices), SAMPLES, 10)


def test_both_layouts_are_one_image() -> None:
    x = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    spec, rows = ImageSpec(3, 8, 10), np.arange(2)
    for given in (x, x.transpose(0, 2, 3, 1)):
        np.testing.assert_array_equal(exchange.images(file([0, 1], given), rows, spec), x)
    with pytest.raises(DataError, match=r"images of shape \(1, 8, 8\)"):
        exchange.images(file([0, 1]), rows, spec)


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.3), ("l2", 0.3)])
def test_rounding_is_no_violation_and_more_is(norm: str, radius: float) -> None:
    threat = ThreatModel(norm, radius)  # type: ignore[arg-type]
    x = np.full((2, 1, 8, 8), 0.1, np.float32)
    within, outside = x.copy(), x.copy()
    within[1, 0, 0, 0] += np.float32(radius)
    exchange.check(within, x, np.array([4, 5]), threat)
    outside[1, 0, 0, 0] += np.float32(radius + 3e-6)
    with pytest.raises(DataError, match=r"image 5 is 0\.30000"):
        exchange.check(outside, x, np.array([4, 5]), threat)


def test_l2_is_over_all_pixels() -> None:
    x = np.zeros((1, 1, 8, 8), np.float32)
    with pytest.raises(DataError, match=r"image 0 is 0\.8 from"):
        exchange.check(x + np.float32(0.1), x, np.array([0]), ThreatModel("l2", 0.3))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
        (1.1, r"pixels in \[0, 1\.1\]"),
        (-0.1, r"pixels in \[-0\.1, 0\]"),
    ],
)
def test_what_is_no_pixel(value: float, message: str) -> None:
    x = np.zeros((3, 1, 8, 8), np.float32)
    broken = x.copy()
    broken[2, 0, 1, 1] = value
    with pytest.raises(DataError, match=f"image 12 has {message}.*1 of 3 images"):
        exchange.check(broken, x, np.array([10, 11, 12]), ThreatModel("linf", 2.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": np.zeros((2, 1, 8, 8), np.float32), "y": np.zeros(2)}, r"has no x_adv \(it has x, y\)"),
        ({"x_adv": np.zeros((2, 1, 8, 8), int)}, "x_adv is int64"),
        ({"x_adv": np.zeros((2, 64), np.float32)}, r"x_adv is float32 \(2, 64\)"),
        ({"x_adv": np.zeros((0, 1, 8, 8), np.float32)}, "x_adv is float32"),
        ({"x_adv": np.zeros((2, 1, 8, 8), np.float32), "indices": np.array([0.0, 1.0])}, "give 2 integers"),
        ({"x_adv": np.zeros((2, 1, 8, 8), np.float32), "indices": np.arange(3)}, "give 2 integers"),
    ],
)
def test_what_a_file_has_to_hold(tmp_path: Path, content: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=message):
        exchange.read(tmp_path / "a.npz")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        exchange.read(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"no \.safetensors or \.npz"):
        exchange.read(tmp_path / "a.csv")
