"""Models of RobustBench's zoo: the library's architecture, a checkpoint made here, the zoo's names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchbox.plugins.defenses import robustbench_bridge
from benchbox.plugins.defenses.robustbench_bridge import RobustBench
from torch import nn

from benchbox.cli import main
from benchbox.contract import registry
from benchbox.contract.checkpoint import sha256
from benchbox.contract.pretrained import Shelf
from benchbox.domain import ImageSpec
from benchbox.errors import ArtifactError, BenchboxError, RequestError

SPEC = ImageSpec(3, 32, 10)
#: The zoo's smallest: a PreAct ResNet-18.
NAME = "Wong2020Fast"
needs_library = pytest.mark.skipif(importlib.util.find_spec("robustbench") is None, reason="needs robustbench")


def configured(model: str, *scopes: str, **overrides: str) -> robustbench_bridge.ZooRecipe:
    recipe = RobustBench.configure("cifar", *(scopes or ("cifar10", "linf")), model=model, **overrides)
    assert isinstance(recipe, robustbench_bridge.ZooRecipe)
    return recipe


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, download=False)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty noisy images that are called CIFAR-10."""
    x = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    y = np.arange(40) % 10
    np.savez(tmp_path / "cifar10.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    monkeypatch.setenv("BENCHBOX_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(recipe: Any, file: Path) -> Any:
    """A recipe as a plan has it: with what the weights are in the place of where they lie."""
    return recipe.model_copy(update={"weights": sha256(file)})


def checkpoint(folder: Path, change: str = "") -> nn.Module:
    """A random network of the zoo, whose weights lie where the zoo's would, as its authors wrap them."""
    torch.manual_seed(0)
    network = RobustBench(configured(NAME), SPEC).classifier
    tensors = {f"module.{change}{key}": value for key, value in network.state_dict().items()}
    place = folder / "robustbench" / "cifar10" / "Linf" / f"{NAME}.pt"
    place.parent.mkdir(parents=True)
    torch.save({"state_dict": tensors}, place)
    return network.eval()


@needs_library
def test_a_checkpoint_is_taken_as_the_library_takes_it(tmp_path: Path, shelf: Shelf) -> None:
    expected = checkpoint(tmp_path)
    recipe = configured(NAME)
    torch.manual_seed(1)
    defense = RobustBench(recipe, SPEC)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(defense.eval()(x), expected(x))
    file = RobustBench.file(recipe, shelf)
    defense.recipe = planned(recipe, file)
    defense.adopt(file)
    assert torch.equal(defense.eval()(x), expected(x))
    torch.save({"state_dict": {}}, file)
    with pytest.raises(ArtifactError, match="is another file than a moment ago"):
        defense.adopt(file)


@needs_library
def test_it_runs_by_the_zoo_s_name(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(workspace)
    words = ["--dataset", "cifar10", "--attacks", "fgsm", "--samples", "4", "--quiet", "--no-download"]
    assert main(["run", "--defense", f"robustbench:{NAME}", *words]) == 0
    said = capsys.readouterr()
    assert f"robustbench:{NAME}" in said.out
    assert "1 cell done" in said.out
    assert [line for line in said.err.splitlines() if "is a pickle" not in line] == []


@needs_library
def test_a_checkpoint_of_another_network_names_its_first_key(tmp_path: Path, shelf: Shelf) -> None:
    checkpoint(tmp_path, change="backbone.")
    file = RobustBench.file(configured(NAME), shelf)
    defense = RobustBench(planned(configured(NAME), file), SPEC)
    with pytest.raises(
        ArtifactError, match=rf"does not fit robustbench:{NAME}: missing key '\w.*'; place"
    ) as caught:
        defense.adopt(file)
    assert "\n" not in str(caught.value)


@needs_library
def test_absent_weights_say_what_to_place_where(tmp_path: Path, shelf: Shelf) -> None:
    for name, source in ((NAME, "drive.google.com"), ("Debenedetti2022Light_XCiT-S12", "github.com/RobustBench")):
        with pytest.raises(ArtifactError, match=source) as caught:
            RobustBench.file(configured(name), shelf)
        assert str(tmp_path / "robustbench" / "cifar10" / "Linf" / f"{name}.pt") in str(caught.value)
        assert f"robustbench:{name} for cifar10 Linf" in str(caught.value)


@needs_library
@pytest.mark.parametrize("arrives", ["a page", "nothing"])
def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrives: str) -> None:
    def download(drive: str, part: Path) -> None:
        if arrives == "a page":
            part.write_text("<html>Quota exceeded</html>")

    monkeypatch.setattr(robustbench_bridge._library("utils"), "download_gdrive_new", download)
    with pytest.raises(ArtifactError, match="the download failed"):
        RobustBench.file(configured(NAME), Shelf(tmp_path))
    assert list(tmp_path.rglob("*.pt")) == []


@needs_library
@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (
            configured("Carmon2019Unlabelled"),
            "cifar10 Linf 'Carmon2019Unlabelled'; did you mean Carmon2019Unlabeled",
        ),
        (configured(NAME, "cifar100", "linf"), f"for cifar100 Linf '{NAME}'; the zoo has it for cifar10 Linf"),
        (configured(NAME, "cifar10", "l2"), f"for cifar10 L2 '{NAME}'; the zoo has it for cifar10 Linf"),
        (configured(NAME, "mnist", "linf"), "no model for this data set; use --dataset cifar10 or cifar100"),
        (configured("Chen2020Adversarial"), "is an ensemble of 3 files"),
    ],
    ids=lambda value: "" if isinstance(value, str) else f"{value.model} {value.dataset} {value.threat}",
)
def test_a_name_the_zoo_has_not(recipe: robustbench_bridge.ZooRecipe, sentence: str, shelf: Shelf) -> None:
    with pytest.raises(RequestError) as caught:
        RobustBench.file(recipe, shelf)
    assert sentence in str(caught.value)


@needs_library
def test_nothing_stays_of_what_the_library_was_given(workspace: Path) -> None:
    import sys

    robustbench_bridge._library("utils")
    absent = [n for n in ("autoattack", "pkg_resources") if n not in sys.modules]
    assert [importlib.util.find_spec(name) for name in absent] == [None] * len(absent)


def test_without_the_library_the_error_names_the_package(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, shelf: Shelf
) -> None:
    monkeypatch.setattr(robustbench_bridge.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchboxError, match=r"pip install -e '.\[robustbench\]'"):
        RobustBench.file(configured(NAME), shelf)


def test_the_prefix_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.defenses().get("robustbench").cls is RobustBench
    assert registry.defenses().get("robustbench:Any").preset == {"model": "Any"}
    assert main(["show", "robustbench"]) == 0
    assert "robustbench:NAME" in " ".join(capsys.readouterr().out.split())


ARCHITECTURE = """
from robustbench.model_zoo.architectures.dm_wide_resnet import DMWideResNet, Swish

def network():
    return DMWideResNet(num_classes=10, depth=10, width=1, activation_fn=Swish)
"""


@needs_library
def test_an_architecture_of_the_library_is_a_factory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(ARCHITECTURE)
    made = registry.defenses(tmp_path).get("model.py:network").cls
    torch.manual_seed(0)
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in made._network().state_dict().items()}}, tmp_path / "w.pt"
    )
    defense = made(planned(made.recipe_type(), tmp_path / "w.pt"), ImageSpec(3, 32, 10))
    defense.adopt(tmp_path / "w.pt")
    assert tuple(defense(torch.zeros(2, 3, 32, 32)).shape) == (2, 10)
