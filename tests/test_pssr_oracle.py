"""The oracle x + δ·M_t: by hand, and through the engine that shows it the clean images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchbox.plugins.defenses.pssr import PixelSurgery, SurgeryRecipe
from benchbox.plugins.defenses.pssr_oracle import Oracle, RegeneratingOracle
from torch import Tensor, nn

from benchbox.cli import main
from benchbox.domain import ImageSpec
from benchbox.draws import Draws
from benchbox.errors import DefenseError
from benchbox.store import Store


@pytest.fixture
def oracle() -> Oracle:
    """odds = (2, 0, 6, 0) · x: the gradient is (2, 0, 6, 0), 1.5 times its mean is 3, so pixel 2 is salient."""
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = torch.tensor([[2.0, 0, 6, 0], [0, 0, 0, 0]])
    network = nn.Sequential(nn.Flatten(), layer).requires_grad_(False)
    return Oracle(SurgeryRecipe(threshold="sample"), ImageSpec(1, 2, 2), network).eval()


def pixels(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).view(-1, 1, 2, 2)


CLEAN = pixels([0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4])
DELTA = pixels([0.1, -0.1, 0.1, -0.1], [-0.05, 0.05, 0.05, -0.05])
LEFT = pixels([0.6, 0.4, 0.5, 0.4], [0.05, 0.25, 0.3, 0.35])  # CLEAN where M_t is 0, else CLEAN + DELTA


def test_the_perturbation_of_salient_pixels_is_taken_back(oracle: Oracle) -> None:
    draws = Draws(torch.tensor([7, 3]))
    oracle.reveal(CLEAN, draws)
    assert torch.allclose(oracle.purify(CLEAN + DELTA, draws), LEFT)
    assert torch.equal(oracle.purify(CLEAN, draws), CLEAN)
    # 2 · 0.6 + 6 · 0.5 and 2 · 0.05 + 6 · 0.3
    assert torch.allclose(oracle(CLEAN + DELTA, draws), torch.tensor([[4.2, 0], [1.9, 0]]))


def test_images_are_found_by_their_index(oracle: Oracle) -> None:
    oracle.reveal(CLEAN, Draws(torch.tensor([7, 3])))
    swapped = Draws(torch.tensor([3, 7])).at("score", 1)
    assert torch.allclose(oracle.purify((CLEAN + DELTA).flip(0), swapped), LEFT.flip(0))
    one = Draws(torch.tensor([3]))
    assert torch.allclose(oracle.purify((CLEAN + DELTA)[1:], one), LEFT[1:])


@pytest.mark.parametrize("indices", [[7, 4], [7]])
def test_an_image_it_was_not_shown_is_an_error(oracle: Oracle, indices: list[int]) -> None:
    oracle.reveal(CLEAN, Draws(torch.tensor([7, 3])))
    with pytest.raises(DefenseError, match="was not shown the clean image"):
        oracle(CLEAN, Draws(torch.tensor(indices)))


def test_a_constant_mask_has_no_gradient_where_pixels_are_taken_back(oracle: Oracle) -> None:
    draws = Draws(torch.tensor([7, 3]))
    oracle.reveal(CLEAN, draws)
    for name, expected in (("mask-constant", [2, 0, 0, 0]), ("identity-removal", [2, 0, 6, 0])):
        leaf = (CLEAN + DELTA).requires_grad_()
        (gradient,) = torch.autograd.grad(oracle.surrogates()[name](leaf, draws)[:, 0].sum(), leaf)
        assert gradient.flatten(1).tolist() == [expected, expected]


def test_what_the_oracle_leaves_is_regenerated(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """From x + δ·M_t and the mask, in training as when it is asked."""
    recipe = RegeneratingOracle.configure(threshold="sample", benign=False, width=4)
    whole = RegeneratingOracle(recipe, ImageSpec(1, 8, 2), oracle.classifier).eval()
    draws = Draws(torch.tensor([7, 3]))
    whole.reveal(CLEAN, draws)
    mask = pixels([1, 1, 0, 1], [1, 1, 0, 1])
    monkeypatch.setattr(whole, "regenerate", lambda left, mask, x: 0.5 * left + 0.25 * mask)
    assert torch.allclose(whole.purify(CLEAN + DELTA, draws), 0.5 * LEFT + 0.25 * mask)
    monkeypatch.setattr(whole, "training_mask", lambda batch: mask)
    monkeypatch.setattr(whole, "drawn_images", lambda batch: CLEAN + DELTA)
    left, seen, drawn = whole.training_input(SimpleNamespace(x=CLEAN))
    assert torch.allclose(left, LEFT)
    assert torch.equal(seen, mask)
    assert torch.equal(drawn, CLEAN + DELTA)


def test_deployed_surgery_has_no_eyes_for_clean_images() -> None:
    assert PixelSurgery.deployable
    assert "reveal" not in vars(PixelSurgery)


def test_the_engine_shows_them_under_every_access_and_never_ranks_it(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--set", "none.epochs=4", "--set", "pgd.steps=3", "--set", "pssr:oracle.attack_steps=2"]
    access = ["--access", "gray-box,white-box,bpda,transfer"]
    words = ["--dataset", "tiny", "--attacks", "pgd", *access, *quick, "--batch-size", "8", "--quiet"]
    assert main(["run", "--defense", "none,pssr:oracle", *words]) == 0, capsys.readouterr().err
    assert "Oracles know what no defence can know and are not ranked." in " ".join(capsys.readouterr().out.split())
    with Store.open("results/benchbox.sqlite") as store:
        found = {(e.cell.defense.name, e.cell.access): e.outcome for e in store.evidence()}
    clean = {name: outcome.clean for (name, _), outcome in found.items()}
    assert np.array_equal(clean["none"], clean["pssr:oracle"])  # the benign accuracy is the classifier's
    assert len([key for key in found if key[0] == "pssr:oracle"]) == 4
