"""Diffusion purifiers: known answers where the score is known, exact gradients, score models from folders."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from benchbox import ArtifactError, ImageSpec, RequestError, sample_draws
from benchbox.contract import registry

diffusers = pytest.importorskip("diffusers")
from benchbox.plugins.defenses import _diffusion, diffpure, gdmp  # noqa: E402

SPEC = ImageSpec(1, 8, 3, (0.3,), (0.4,))
TINY = {"width": 8, "multipliers": (1,), "layers": 1, "attention": (), "patch": 1}
#: Standard deviation of the images whose score is known below.
SPREAD = 0.3


def built(cls: Any = diffpure.DiffPure, spec: ImageSpec = SPEC, **settings: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.size**2, 3))
        return cls(cls.configure(**{**TINY, **settings}), spec, classifier).eval().requires_grad_(False)


class Gaussian(_diffusion.ScoreModel):
    """The noise of images in [-1, 1] whose pixels are normal and independent."""

    def forward(self, state: Tensor, time: int | Tensor) -> Tensor:
        assert isinstance(time, int)
        alpha = self.alphas[time]
        return (1 - alpha) ** 0.5 * state / (alpha * SPREAD**2 + 1 - alpha)


def known(cls: Any, **settings: Any) -> Any:
    defense = built(cls, **settings)
    defense.score = Gaussian(nn.Identity(), defense.score.alphas[1:], "epsilon")
    return defense


def end(defense: Any, n: int = 64) -> tuple[Tensor, Tensor]:
    """The state at t* and after the last step, of images that have the known distribution."""
    draws = sample_draws(n)
    x = (SPREAD * draws.at("x").normal(1, 8, 8) + 1) / 2
    state = start = defense.begin(x, draws)
    for i in range(defense.length):
        state = defense.step(i, state, x, draws)
    return start, state


def test_the_ode_ends_where_it_has_to() -> None:
    defense = known(diffpure.DiffPureODE, t_star=0.4, steps=200)
    start, state = end(defense)
    alpha = defense.score.alphas[400]
    torch.testing.assert_close(
        state, start * SPREAD / (alpha * SPREAD**2 + 1 - alpha) ** 0.5, rtol=0.01, atol=0.002
    )


@pytest.mark.parametrize(("cls", "settings"), [(diffpure.DiffPure, {}), (gdmp.GDMP, {"rounds": 1, "guidance": 0})])
def test_the_reverse_steps_keep_the_distribution(cls: Any, settings: dict[str, Any]) -> None:
    start, state = end(known(cls, t_star=0.4, steps=200, **settings))
    assert math.isclose(float(state.std()), SPREAD, rel_tol=0.03)
    # It went through noise of its own: the ODE would end in a multiple of where it began.
    assert float(torch.corrcoef(torch.stack([start.flatten(), state.flatten()]))[0, 1]) < 0.95


def test_guidance_draws_the_image_to_what_came_in() -> None:
    x = sample_draws(8).at("x").uniform(1, 8, 8)
    far, near = (
        (built(gdmp.GDMP, t_star=0.3, steps=20, guidance=a).purify(x, sample_draws(8)) - x).abs().mean()
        for a in (0.0, 50.0)
    )
    assert near < 0.7 * far


class Keeping(_diffusion.ScoreModel):
    """The noise of a single image: every step leads back towards it."""

    image: Tensor

    def forward(self, state: Tensor, time: int | Tensor) -> Tensor:
        assert isinstance(time, int)
        alpha = self.alphas[time]
        return (state - alpha**0.5 * self.image) / (1 - alpha) ** 0.5


@pytest.mark.parametrize(
    ("cls", "settings"), [(diffpure.DiffPureODE, {}), (gdmp.GDMP, {"rounds": 3, "guidance": 0})]
)
def test_a_purifier_that_keeps_the_image_deviates_little(cls: Any, settings: dict[str, Any]) -> None:
    """What DiffAttack compares a state with has the noise that the state began with, in every round anew."""
    defense = built(cls, t_star=0.02, steps=20, **settings)
    draws = sample_draws(4)
    x = draws.at("x").uniform(1, 8, 8)
    defense.score = Keeping(nn.Identity(), defense.score.alphas[1:], "epsilon")
    defense.score.image = 2 * x - 1
    trail = defense.trail(x, draws)
    firsts = list(range(0, defense.length, defense.recipe.steps))
    away = (trail.states - trail.faithful)[:, firsts].flatten(2).norm(dim=2)
    noise = (trail.faithful[:, firsts] - (2 * x - 1)[:, None]).flatten(2).norm(dim=2)
    assert float((away / noise).max()) < 0.5


@pytest.mark.parametrize("cls", [diffpure.DiffPure, diffpure.DiffPureODE, gdmp.GDMP])
def test_the_checkpointed_gradient_is_the_plain_one(cls: Any) -> None:
    defense, gradients = built(cls, t_star=0.2, steps=6), []
    for defense.checkpointed in (True, False):
        x = sample_draws(4).at("x").uniform(1, 8, 8).requires_grad_()
        gradients += torch.autograd.grad(defense(x, sample_draws(4))[:, 0].sum(), x)
    assert float((gradients[0] - gradients[1]).abs().max()) <= 1e-5 * float(gradients[1].abs().max())


def test_the_adjoint_of_a_fine_ode_is_its_gradient() -> None:
    defense, found = known(diffpure.DiffPureODE, t_star=0.2, steps=200), []
    for name in ("autograd", "adjoint"):
        x = (0.3 + 0.4 * sample_draws(4).at("x").uniform(1, 8, 8)).requires_grad_()
        found += torch.autograd.grad(defense.surrogates()[name](x, sample_draws(4))[:, 0].sum(), x)
    torch.testing.assert_close(*found, rtol=0.02, atol=1e-4)


def test_a_step_for_each_time_at_most() -> None:
    with pytest.raises(RequestError, match=r"diffpure.steps = 11 does not fit: .* has 10 times"):
        built(t_star=0.01, steps=11)


UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8,),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "norm_num_groups": 8,
}
HALVED = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}


def kept(
    folder: Path,
    predicts: str = "epsilon",
    unet: Mapping[str, Any] | None = None,
    chain: Any = None,
    **changes: Any,
) -> Path:
    """A folder as diffusers writes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = diffusers.UNet2DModel(**{**UNET, **(unet or {})})
    model.save_pretrained(folder, **changes)
    (chain or diffusers.DDPMScheduler(prediction_type=predicts)).save_pretrained(folder)
    return folder


def rewritten(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_score_model_of_any_folder(tmp_path: Path) -> None:
    state = sample_draws(2).normal(1, 8, 8)
    raw, velocity, image = (
        built(score=str(kept(tmp_path / kind, kind))).score for kind in ("epsilon", "v_prediction", "sample")
    )
    says, alpha = raw(state, 300), raw.alphas[300]
    torch.testing.assert_close(velocity(state, 300), alpha**0.5 * says + (1 - alpha) ** 0.5 * state)
    torch.testing.assert_close(image(state, 300), (state - alpha**0.5 * says) / (1 - alpha) ** 0.5)
    # Results follow what is in it.
    copy = kept(tmp_path / "elsewhere")
    first, second, other = (
        diffpure.DiffPure.configure(score=str(tmp_path / name)).identity()["score_digest"]
        for name in ("epsilon", "elsewhere", "sample")
    )
    assert first == second != other
    assert built(score=str(copy)).players() == {"score": []}
    assert not any("score" in name for name in diffpure.DiffPure.configure().identity())
    with pytest.raises(ArtifactError, match="holds another model than a moment ago"):
        built(score=str(copy), score_digest=other)


def test_a_score_model_that_sees_blocks_of_pixels(tmp_path: Path) -> None:
    trained = built(patch=2).score
    trained.unet.save_pretrained(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    state = sample_draws(2).normal(1, 8, 8)
    torch.testing.assert_close(built(score=str(tmp_path)).score(state, 300), trained(state, 300))


def test_folders_that_hold_no_score_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no config.json"):
        built(score=str(tmp_path))
    with pytest.raises(ArtifactError, match=r"has no .safetensors, which alone are read"):
        built(score=str(kept(tmp_path / "pickle", safe_serialization=False)))
    with pytest.raises(RequestError, match=r"for 1×8×8 images, not 3×32×32"):
        built(score=str(kept(tmp_path / "small")), spec=ImageSpec(3, 32, 3, (0.5,) * 3, (0.5,) * 3))
    (tmp_path / "small" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(ArtifactError, match="holds a UNet2DConditionModel"):
        built(score=str(tmp_path / "small"))


@pytest.mark.parametrize(
    ("cls", "scheduler", "chain"),
    [
        (gdmp.GDMP, "DDPMScheduler", {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}),
        (diffpure.DiffPure, "DDIMScheduler", {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}),
        (diffpure.DiffPureODE, "EulerDiscreteScheduler", {"num_train_timesteps": 400, "beta_end": 0.05}),
    ],
)
def test_a_colour_model_with_any_schedule(tmp_path: Path, cls: Any, scheduler: str, chain: dict[str, Any]) -> None:
    colour = {
        "sample_size": (32, 32),
        "in_channels": 3,
        "out_channels": 6,
        "block_out_channels": (8, 16),
        **HALVED,
    }
    folder = kept(tmp_path / "m", unet=colour, chain=getattr(diffusers, scheduler)(**chain))
    spec = ImageSpec(3, 32, 3, (0.5,) * 3, (0.5,) * 3)
    defense = built(cls, spec, score=str(folder), t_star=0.9, steps=3)
    x = sample_draws(2).at("x").uniform(3, 32, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(defense(x, sample_draws(2))[:, 0].sum(), x)
    assert gradient.isfinite().all()
    if "rescale_betas_zero_snr" in chain:
        with pytest.raises(RequestError, match=r"t_star = 1 is where .* only noise"):
            built(spec=spec, score=str(folder), t_star=1, steps=10)


def test_a_model_that_names_no_size_takes_any(tmp_path: Path) -> None:
    folder = kept(tmp_path / "m", unet={"sample_size": None, "block_out_channels": (8, 8), **HALVED})
    assert built(score=str(folder)).score.patch == 1
    with pytest.raises(ArtifactError, match=r"asked about a 1×7×7 image, fails: RuntimeError: Sizes of tensors"):
        built(spec=ImageSpec(1, 7, 3, (0.3,), (0.4,)), score=str(folder))


def test_images_that_are_no_squares(tmp_path: Path) -> None:
    wide = ImageSpec(1, 8, 3, (0.3,), (0.4,), width=12)
    folder = kept(tmp_path / "m", unet={"sample_size": (8, 12)})
    x = sample_draws(2).at("x").uniform(1, 8, 12)
    for settings in ({"patch": 4}, {"score": str(folder)}):
        assert built(spec=wide, t_star=0.1, steps=2, **settings).purify(x, sample_draws(2)).shape == x.shape
    with pytest.raises(RequestError, match="images of 8×12 pixels cannot be cut into blocks of 8"):
        built(spec=wide, patch=8)


def broken(folder: Path, how: str) -> None:
    """Spoil a good folder."""
    weights, config = folder / "diffusion_pytorch_model.safetensors", folder / "config.json"
    tensors = load(weights.read_bytes())
    match how:
        case "cut short":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "a pickle by another name":
            torch.save(tensors, weights)
        case "a pointer":
            weights.write_text("version https://git-lfs.github.com/spec/v1\n")
        case "NaN":
            save_file({**tensors, "conv_out.bias": torch.full((1,), math.nan)}, weights)
        case "one lost":
            save_file({name: value for name, value in tensors.items() if name != "conv_out.bias"}, weights)
        case "one too many":
            save_file({**tensors, "conv_more.bias": torch.zeros(1)}, weights)
        case "another width":
            rewritten(config, block_out_channels=[16])
        case "no list":
            rewritten(config, block_out_channels=8)
        case "unknown blocks":
            rewritten(config, down_block_types=["FancyDownBlock2D"])
        case "quantised":
            rewritten(config, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut short", "cannot be read"),
        ("a pickle by another name", "cannot be read"),
        ("a pointer", "cannot be read"),
        ("NaN", "answers with NaN"),
        ("one lost", "lack conv_out.bias; save"),
        ("one too many", "have, which its config.json does not know, conv_more.bias; save"),
        ("another width", "cannot be read"),
        ("no list", "cannot be read"),
        ("unknown blocks", "cannot be read"),
        ("quantised", "cannot be read"),
    ],
)
def test_a_broken_folder_is_refused_in_a_line(tmp_path: Path, how: str, said: str) -> None:
    broken(kept(tmp_path / "m"), how)
    with pytest.raises(ArtifactError, match=said) as found:
        built(score=str(tmp_path / "m"))
    assert "\n" not in str(found.value)


def test_a_model_that_waits_for_a_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="class_labels should be provided"):
        built(score=str(kept(tmp_path / "m", unet={"num_class_embeds": 10})))
    with pytest.raises(ArtifactError, match="fails: RuntimeError"):
        built(score=str(kept(tmp_path / "n", unet={"in_channels": 4, "out_channels": 2, "sample_size": 4})))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"beta_end": 2.0}, "do not fall"),
        ({"beta_start": 0.0, "beta_end": 0.0}, "do not fall"),
        ({"num_train_timesteps": -5}, "is no schedule"),
        ({"num_train_timesteps": "many"}, "is no schedule"),
        ({"beta_schedule": "of my own"}, "is no schedule"),
        ({"prediction_type": "flow_prediction"}, "it has to be one of epsilon"),
    ],
)
def test_a_schedule_that_is_none_is_refused(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    rewritten(kept(tmp_path / "m") / "scheduler_config.json", **values)
    with pytest.raises(ArtifactError, match=said):
        built(score=str(tmp_path / "m"))


@pytest.mark.parametrize("name", ["ScoreSdeVeScheduler", "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"])
def test_noise_of_another_kind_is_not_taken_for_that_of_a_ddpm(tmp_path: Path, name: str) -> None:
    folder = kept(tmp_path / "m", chain=getattr(diffusers, name)())
    with pytest.raises(ArtifactError, match=rf"\({name}\) is no schedule of a DDPM: it has no β"):
        built(score=str(folder))


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        RequestError, match=r"need the library diffusers; pip install -e '.\[diffusion\]' in benchbox's folder$"
    ):
        built()


def test_they_are_registered() -> None:
    names = registry.defenses(Path("/nonexistent")).names()
    assert {"diffpure", "diffpure:ode", "gdmp"} <= set(names)
