"""Mixed precision speeds up training and reaches nothing else."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import Said
from test_contract import BALL, DEFENSES, QUICK_DEFENSE, TRAINED
from torch import nn

from benchbox import nets
from benchbox.data.dataset import Dataset, Images, load
from benchbox.errors import RequestError
from benchbox.training.loop import fit
from benchbox.training.precision import Precision, choose, float32_outputs, reduced

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> Images:
    return dataset.train.rows(slice(80))


@pytest.mark.parametrize("name", TRAINED)
def test_every_defense_trains_in_bfloat16(name: str, dataset: Dataset, images: Images) -> None:
    cls = DEFENSES.get(name).cls
    quick = {k: v for k, v in QUICK_DEFENSE.items() if k in cls.recipe_type.model_fields}
    recipe = cls.configure("mnist", "digits", **quick)
    base = nets.build("lenet5", dataset.spec).eval().requires_grad_(False) if cls.base else None
    defense = cls(recipe, dataset.spec, base)
    before = {player: copy.deepcopy(parameters) for player, parameters in defense.players().items()}
    history = fit(defense, recipe, images, threat=BALL, seed=0, device=CPU, precision="bfloat16")
    assert all(torch.isfinite(torch.tensor(value)) for epoch in history for value in epoch.values())
    for player, parameters in defense.players().items():
        moved = [not torch.equal(a, b) for a, b in zip(parameters, before[player], strict=True)]
        # Biases before a normalisation have no gradient worth the name; weights do.
        assert all(m for m, p in zip(moved, parameters, strict=True) if p.dim() > 1), player
        assert all(p.dtype == torch.float32 for p in parameters)


def test_only_products_are_rounded() -> None:
    torch.manual_seed(0)
    parent = nn.Sequential(nn.Linear(64, 10))
    x = torch.randn(50, 64)
    exact = parent(x)
    with reduced(CPU, "bfloat16"), float32_outputs(parent):
        rounded = parent(x)
        assert rounded.dtype == torch.float32
        # bfloat16 keeps eight bits; the softmax of what it leaves is not rounded again.
        assert F.log_softmax(rounded, 1).dtype == torch.float32
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < error < 0.02
    assert torch.equal(parent(x), exact)


def test_a_pass_without_gradients_does_not_take_them_from_the_next() -> None:
    # Holds in torch 2.15 with its cache of converted weights as well; the loop does without.
    layer = nn.Linear(4, 2)
    with reduced(CPU, "bfloat16"):
        with torch.no_grad():
            layer(torch.ones(1, 4))
        loss = layer(torch.ones(1, 4)).float().sum()
    (gradient,) = torch.autograd.grad(loss, [layer.weight])
    assert torch.equal(gradient, torch.ones(2, 4))


def test_float32_trains_as_if_there_were_no_mixed_precision(images: Images, dataset: Dataset) -> None:
    cls = DEFENSES.get("none").cls
    recipe = cls.configure("mnist", "digits", epochs=1)

    def trained(**precision: Precision) -> torch.Tensor:
        torch.manual_seed(0)
        defense = cls(recipe, dataset.spec)
        fit(defense, recipe, images, threat=BALL, seed=0, device=CPU, **precision)
        return torch.cat([p.detach().flatten() for p in defense.parameters()])

    full, again, mixed = trained(precision="float32"), trained(), trained(precision="bfloat16")
    assert torch.equal(full, again)
    assert not torch.equal(full, mixed)
    assert (full - mixed).abs().max() < 0.02


def test_the_device_decides_unless_the_user_does() -> None:
    assert choose("float32", CPU) == "float32"
    assert choose("bfloat16", CPU) == "bfloat16"
    with pytest.raises(RequestError, match="float16"):
        choose("float16", CPU)


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize(
    ("device", "asked"),
    [("cuda", "torch.cuda.is_bf16_supported"), ("cpu", "torch.cpu._is_avx512_bf16_supported")],
)
def test_what_computes_in_bfloat16_trains_in_it(
    device: str, asked: str, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, lambda: able, raising=False)
    assert choose(None, torch.device(device)) == ("bfloat16" if able else "float32")
    assert choose("float32", torch.device(device)) == "float32"


def test_a_torch_that_cannot_tell_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch.cpu._is_avx512_bf16_supported", raising=False)
    assert choose(None, CPU) == "float32"
    assert choose(None, torch.device("meta")) == "float32"


def test_networks_that_answer_with_several_hand_out_float32_and_are_left_as_they_were() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.bfloat16(), x.double()

    parent = nn.ModuleList([Pair()])
    with float32_outputs(parent):
        assert [part.dtype for part in parent[0](torch.ones(2))] == [torch.float32, torch.float32]
    assert [part.dtype for part in parent[0](torch.ones(2))] == [torch.bfloat16, torch.float64]


def test_weights_of_another_precision_than_is_asked_for_are_named(workspace: Path, said: Said) -> None:
    words = ("--defense", "none", "--dataset", "tiny", "--set", "none.epochs=1", "--device", "cpu", "--quiet")
    attack = ("--attacks", "fgsm", "--access", "white-box")
    other = (
        "none on tiny, seed 0, was trained in bfloat16, not in float32, and is taken as it is; for one in float32 "
        "name another --store"
    )

    def told(*command: str) -> bool:
        status, _, err = said(*command)
        assert status == 0
        assert err.count("was trained in") == err.count(other) <= 1
        return other in err

    assert not told("train", *words, "--precision", "bfloat16")
    assert told("train", *words, "--precision", "float32")
    assert told("run", *words, *attack, "--precision", "float32")
    for file in Path("results/artifacts").iterdir():
        file.unlink()  # the numbers are there all the same
    assert told("run", *words, *attack, "--precision", "float32")
    assert not told("run", *words, *attack, "--precision", "bfloat16")
    assert not told("run", *words, *attack)
    assert not told("train", *words, "--precision", "float32", "--store", "other/results.sqlite")
