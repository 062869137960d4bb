"""The front door: what the command line does, as functions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Said
from torch import Tensor, nn

import benchbox
from benchbox.engine.lent import borrowed
from benchbox.engine.request import Grid
from benchbox.errors import BenchboxError, DataError, DefenseError, RequestError, StoreError

QUICK = {"none": {"epochs": 1}}


class Rows(nn.Module):
    """Knows the images of `workspace`: class k is bright in row 2k. With what may go wrong in a module."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.register_buffer("rows", torch.arange(10) * 2)
        self.dropout = nn.Dropout(0.9)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        bright = self.dropout(x.view(len(x), 28, 28).mean(2))
        return self.scale / self.temperature * (bright[:, self.rows] + bright[:, self.rows + 1])


@pytest.fixture
def module() -> Rows:
    return Rows().train()


@pytest.fixture
def images(workspace: Path) -> Iterator[tuple[Tensor, Tensor]]:
    with np.load(workspace / "data" / "tiny.npz") as file:
        yield torch.from_numpy(file["x_test"]).float().div(255)[:, None], torch.from_numpy(file["y_test"])


def test_a_name_is_trained_attacked_and_stored(workspace: Path, said: Said) -> None:
    result = benchbox.evaluate("none", dataset="tiny", attacks="fgsm", access="white-box", set=QUICK)
    assert 0 <= result.robust <= result.clean <= 1
    assert result.failed == {}
    words = ("run", "--defense", "none", "--dataset", "tiny", "--attacks", "fgsm", "--access", "white-box")
    status, out, _ = said(*words, "--set", "none.epochs=1", "--quiet")
    assert status == 0
    assert "0 cells done, 1 reused" in out
    # The same table, to the word, from both doors.
    assert [line.rstrip() for line in out.splitlines()][: len(str(result).splitlines())] == str(
        result
    ).splitlines()


def test_a_module_is_attacked_as_it_is_and_comes_back_as_it_went_in(workspace: Path, module: Rows) -> None:
    module.scale.grad = gradient = torch.ones(())
    module.scale.requires_grad_(False)
    where = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    result = benchbox.evaluate(module, dataset="tiny", attacks=["fgsm", "pgd"], epsilon="1/255")
    assert result.clean == 1
    assert result.robust == 1
    assert result.to_dataframe().defense.unique().tolist() == ["Rows"]
    assert {e.cell.access for e in result.evidence} == {benchbox.Access.WHITE_BOX}
    assert module.training
    assert module.dropout.training
    assert module.scale.grad is gradient
    assert not module.scale.requires_grad
    assert where == {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}


def test_a_module_is_known_by_its_state_its_code_and_what_it_does(workspace: Path) -> None:
    def key(module: nn.Module) -> str:
        return benchbox.evaluate(module, dataset="tiny", attacks="null", name="m").evidence[0].cell.key

    class Other(Rows):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    assert key(Rows()) == key(Rows())
    warmer = Rows()
    with torch.no_grad():
        warmer.scale += 1
    keys = {key(Rows()), key(warmer), key(Rows(temperature=2)), key(Other())}
    assert len(keys) == 4


def test_half_and_double_precision_are_asked_in_their_own(workspace: Path) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        module = Rows().to(dtype)
        result = benchbox.evaluate(module, dataset="tiny", attacks="fgsm", epsilon="1/255")
        assert result.clean == 1
        assert module.scale.dtype == dtype


def test_a_defence_class_is_trained_and_a_defence_is_taken_as_it_is(workspace: Path) -> None:
    class Mine(benchbox.Classifier):
        card = benchbox.Card("mine", "of this test")

        def losses(self, batch: benchbox.Batch) -> benchbox.Losses:
            return {"classifier": {"ce": nn.functional.cross_entropy(self(batch.x), batch.y)}}

    mine = benchbox.evaluate(Mine, dataset="tiny", attacks="fgsm", access="white-box", set={"mine": {"epochs": 1}})
    assert [row.label for table in mine.tables for row in table.rows] == ["mine"]

    purifier = Flip(benchbox.Recipe(), benchbox.ImageSpec(1, 28, 10), Rows().eval())
    result = benchbox.evaluate(purifier, dataset="tiny", attacks=["pgd"], set={"pgd": {"steps": 2}})
    # Its classifier is another model than itself: gray-box and BPDA are measured, transfer cannot be.
    assert {str(e.cell.access) for e in result.evidence} == {"gray-box", "white-box", "bpda"}


class Flip(benchbox.Purifier):
    """Mirrors the image, which changes no row."""

    card = benchbox.Card("flip", "mirrors the image")

    def purify(self, x: Tensor, draws: benchbox.Draws) -> Tensor:
        return x.flip(-1)

    def losses(self, batch: benchbox.Batch) -> benchbox.Losses:
        return {}


def test_a_result_gives_frames_images_and_a_page(workspace: Path, module: Rows) -> None:
    result = benchbox.evaluate(module, dataset="tiny", attacks=["fgsm", "pgd"], epsilon="20/255")
    frame = result.to_dataframe()
    assert set(frame.attack.dropna()) >= {"fgsm", "pgd"}
    crafted = result.images("pgd")
    assert crafted.shape == (20, 1, 28, 28)
    assert crafted.dtype == np.float32
    fates = result.fates()
    assert len(fates) == 2 * 20
    by_class = fates[fates.attack == "pgd"].groupby("label")[["clean", "adversarial"]].mean()
    assert by_class.index.tolist() == list(range(10))
    page = result._repr_html_()
    assert "<table" in page
    assert "white-box" in page
    with pytest.raises(RequestError, match="0 craftings of 'cw'"):
        result.images("cw")


def test_several_rows_have_no_single_number(workspace: Path, module: Rows) -> None:
    result = benchbox.evaluate(
        module, "none", dataset="tiny", attacks="fgsm", access="white-box", set=QUICK, epsilon="1/255"
    )
    with pytest.raises(RequestError, match="2 rows are there"):
        _ = result.robust
    compared = benchbox.compare("Rows", "none", dataset="tiny")
    assert "Rows − none" in str(compared)
    assert "difference" in " ".join(compared.to_dataframe().columns)
    assert set(benchbox.load(defense="Rows").to_dataframe()["defense"]) == {"Rows"}


def test_a_module_s_name_may_not_be_a_defence_s(workspace: Path, module: Rows) -> None:
    with pytest.raises(RequestError, match="'none' is claimed by benchbox; name it otherwise"):
        benchbox.evaluate(module, dataset="tiny", name="none")


def test_a_module_for_other_images_is_refused(workspace: Path) -> None:
    with pytest.raises(BenchboxError, match=r"Linear does not take images of 1×28×28 .*; name the data set"):
        benchbox.evaluate(nn.Linear(3, 10), dataset="tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 8}, "did you mean 8/255"),
        ({"sampels": 3}, "unknown key 'sampels'; did you mean samples"),
        ({"attacks": "pgdd"}, "unknown attack 'pgdd'"),
        ({"dataset": "minst"}, "unknown data set 'minst'"),
    ],
    ids=str,
)
def test_mistakes_are_the_errors_of_the_command_line(
    workspace: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BenchboxError, match=message):
        benchbox.evaluate("none", **{"dataset": "tiny", **options})


def test_a_store_that_is_not_there_is_not_made(workspace: Path) -> None:
    with pytest.raises(StoreError):
        benchbox.load("no.sqlite")
    assert not Path("no.sqlite").exists()


def test_evaluate_is_quiet_unless_asked(workspace: Path, module: Rows, capfd: pytest.CaptureFixture[str]) -> None:
    benchbox.evaluate(module, dataset="tiny", attacks="fgsm")
    assert capfd.readouterr() == ("", "")
    benchbox.evaluate(module, dataset="tiny", attacks="pgd", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "pgd, white-box: 20 images" in err


def test_completion_shows_every_option_and_every_name() -> None:
    import inspect

    options = set(inspect.signature(benchbox.evaluate).parameters)
    assert options >= {
        "dataset",
        "attacks",
        "samples",
        "epsilon",
        "norm",
        "seeds",
        "eot",
        "set",
        "store",
        "progress",
    }
    assert len(options) >= len(Grid.model_fields)
    assert set(dir(benchbox)) >= {"evaluate", "attack", "compare", "load", "Defense", "Attack", "__version__"}


def test_importing_benchbox_does_not_load_torch() -> None:
    code = "import sys, benchbox; dir(benchbox); benchbox.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- attack -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fgsm", "pgd", "torchattacks:PGD", "cw"])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("l2", 0.5)])
def test_attack_keeps_to_the_ball(
    images: tuple[Tensor, Tensor], module: Rows, name: str, norm: str, epsilon: float
) -> None:
    if name == "torchattacks:PGD":
        pytest.importorskip("torchattacks")
        if norm == "l2":
            pytest.skip("it searches the L∞ ball alone")
    x, y = images
    found = benchbox.attack(name, module, x, y, epsilon=epsilon, norm=norm)
    assert found.shape == x.shape
    delta = (found - x).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert float(length.max()) <= epsilon + 1e-6
    assert float(length.min()) > 0
    assert module.training


def test_attack_draws_the_same_for_an_image_whatever_the_batch(
    images: tuple[Tensor, Tensor], module: Rows
) -> None:
    x, y = images
    whole = benchbox.attack("pgd", module, x, y, epsilon="8/255", steps=3)
    part = benchbox.attack("pgd", module, x[:5], y[:5], epsilon="8/255", steps=3)
    torch.testing.assert_close(whole[:5], part)
    other = benchbox.attack("pgd", module, x, y, epsilon="8/255", steps=3, seed=1)
    assert not torch.equal(whole, other)


def test_attack_takes_an_attack_and_refuses_settings_beside_it(
    images: tuple[Tensor, Tensor], module: Rows
) -> None:
    from benchbox.contract import registry

    made = registry.attacks().get("pgd").cls(steps=2)
    assert benchbox.attack(made, module, *images, epsilon=0.1).shape == images[0].shape
    with pytest.raises(RequestError, match="steps: pgd is made already"):
        benchbox.attack(made, module, *images, epsilon=0.1, steps=3)


def test_attack_refuses_what_is_no_image(images: tuple[Tensor, Tensor], module: Rows) -> None:
    x, y = images
    with pytest.raises(DataError, match=r"images are in \[0, 255\], expected \[0, 1\]; divide by 255"):
        benchbox.attack("fgsm", module, x / x.max() * 255, y, epsilon="8/255")
    with pytest.raises(DataError, match="give one class number an image"):
        benchbox.attack("fgsm", module, x, y[:3], epsilon="8/255")
    with pytest.raises(DataError, match=r"give \(N, C, H, W\)"):
        benchbox.attack("fgsm", module, x[0], y[:1], epsilon="8/255")
    with pytest.raises(RequestError, match="unknown setting of attack pgd 'stepps'"):
        benchbox.attack("pgd", module, x, y, epsilon="8/255", stepps=3)


def test_attack_says_what_the_model_does_not_take(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(x[0].numel(), 10))
    with pytest.raises(DataError, match="a label is 10, and Sequential has the classes 0 to 9"):
        benchbox.attack("pgd", net, x, torch.full_like(y, 10), epsilon="8/255")
    with pytest.raises(DefenseError, match=r"Sequential cannot take images \(2, 3, 32, 32\): .*give images of"):
        benchbox.attack("pgd", net, torch.rand(2, 3, 32, 32), y[:2], epsilon="8/255")


def test_a_borrowed_module_comes_back_after_an_error(module: Rows) -> None:
    def fail() -> None:
        with borrowed(module):
            assert not module.training
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert module.training
    assert module.scale.requires_grad
