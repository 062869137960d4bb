"""Anybody's own checkpoint: `--defense file.py:factory --weights file.safetensors`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from checkpoints import DICE, HEARD, MODEL, network, planned, planner, settle
from safetensors.torch import save_file
from torch import nn

from benchbox.contract import registry
from benchbox.contract.checkpoint import fill, sets
from benchbox.contract.pretrained import Pretrained, from_factory
from benchbox.data.dataset import load
from benchbox.draws import sample_draws
from benchbox.errors import ArtifactError, BenchboxError, DefenseError, RequestError
from benchbox.training.artifacts import Training


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return settle(tmp_path, monkeypatch)


def adopted(training: Training) -> Pretrained:
    cls = registry.defenses().get(training.defense.name).cls
    assert issubclass(cls, Pretrained)
    defense = cls(cls.recipe_type(**training.defense.arguments), load("tiny").spec)
    assert training.source is not None
    defense.adopt(training.source)
    return defense


def test_the_logits_are_those_of_the_checkpoint(workspace: Path) -> None:
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    fill(expected := network(), workspace / "net.safetensors")
    assert torch.equal(adopted(planned())(x), expected(x))


def test_weights_and_code_are_the_identity_and_paths_and_seeds_are_not(workspace: Path) -> None:
    before = planned()
    (workspace / "elsewhere.safetensors").write_bytes((workspace / "net.safetensors").read_bytes())
    assert planned(weights="elsewhere.safetensors").digest == before.digest
    assert before.seed == 0
    save_file(network().state_dict(), workspace / "net.safetensors")  # other random weights
    other = planned()
    assert other.digest != before.digest
    (workspace / "model.py").write_text(MODEL + "\n# another version\n")
    assert planned().digest not in (before.digest, other.digest)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickle_is_read_without_unpickling_and_named(workspace: Path, prefix: str, wrapped: bool) -> None:
    tensors = {prefix + key: value for key, value in network().state_dict().items()}
    torch.save({"state_dict": tensors, "epoch": 3} if wrapped else tensors, workspace / "net.pt")
    HEARD.clear()
    defense = adopted(planned(weights="net.pt"))
    assert torch.equal(defense.classifier.state_dict()["1.weight"], tensors[prefix + "1.weight"])
    assert [sentence.partition(" is a pickle")[0] for sentence in HEARD] == ["net.pt"]


def test_a_pickle_with_code_is_refused(workspace: Path) -> None:
    torch.save(network(), workspace / "whole.pt")
    with pytest.raises(
        ArtifactError,
        match=r"whole\.pt holds a whole pickled model \(torch\.nn\.modules.*\), which is code; where you trust it",
    ):
        sets(workspace / "whole.pt")


@pytest.mark.parametrize("weights", ["net.safetensors", "net.pt", "net.pt#state_dict"])
def test_weights_that_change_after_planning_are_refused(workspace: Path, weights: str) -> None:
    """Another training may still be writing to the file."""

    def write(kept: nn.Module) -> None:
        save_file(kept.state_dict(), workspace / "net.safetensors")
        torch.save({"state_dict": kept.state_dict()}, workspace / "net.pt")

    write(before := network())
    training = planned(weights=weights)
    assert torch.equal(adopted(training).classifier[1].weight, before[1].weight)  # type: ignore[index]
    write(network())
    with pytest.raises(ArtifactError, match=r"net\..* is another file than a moment ago, when .* planned; ask"):
        adopted(training)


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = {**network().state_dict(), **{key.replace("_", "."): value for key, value in changes.items()}}
    return {key: value for key, value in tensors.items() if value is not None}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (changed(**{"1_weight": None}), "has no '1.weight'; build the network the weights were saved from"),
        (changed(**{"1_weight": None, "fc1_weight": torch.zeros(1)}), "has no '1.weight' but 'fc1.weight'"),
        (changed(**{"1_weight": torch.zeros(10, 3)}), "'1.weight' is (10, 3) where the network has (10, 784)"),
        (changed(**{"2_bias": torch.zeros(1)}), "has '2.bias', which the network has not"),
    ],
)
def test_the_first_key_that_does_not_fit_is_named(
    workspace: Path, tensors: dict[str, torch.Tensor], sentence: str
) -> None:
    save_file(tensors, workspace / "wrong.safetensors")
    with pytest.raises(ArtifactError, match=re.escape(sentence)):
        adopted(planned(weights="wrong.safetensors"))


@pytest.mark.parametrize(
    ("name", "weights", "error", "sentence"),
    [
        ("model.py:net", None, RequestError, "add --weights FILE.safetensors"),
        ("model.py:net", "absent.safetensors", ArtifactError, "no weights at absent.safetensors"),
        ("model.py:net", "model.py", ArtifactError, "model.py is no weights file but text"),
        (
            "model.py:needy",
            "net.safetensors",
            DefenseError,
            "needy() needs width; it is called without arguments: give them",
        ),
        ("model.py:nothing", "net.safetensors", DefenseError, "returned a str; return a torch.nn.Module"),
        (
            "model.py:Deep",
            "net.safetensors",
            ArtifactError,
            "'1.weight' is (10, 784) where the network has (16, 784)",
        ),
        ("model.py:nett", "net.safetensors", RequestError, "model.py 'nett'; did you mean net"),
        ("pgd-at", "net.safetensors", RequestError, "pgd-at is trained here; weights belong to a factory"),
    ],
)
def test_mistakes_are_one_sentence(
    workspace: Path, name: str, weights: str | None, error: type[BenchboxError], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        adopted(planned(name=name, weights=weights))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_it_does_not_take_are_an_error_before_any_attack(workspace: Path) -> None:
    (workspace / "model.py").write_text(MODEL.replace("784", "100"))
    save_file(nn.Sequential(nn.Flatten(), nn.Linear(100, 10)).state_dict(), workspace / "net.safetensors")
    with pytest.raises(DefenseError, match=r"model\.py:net does not take images of 1×28×28 .* --dataset"):
        adopted(planned())
    (workspace / "model.py").write_text(MODEL.replace("10)", "7)"))
    save_file(nn.Sequential(nn.Flatten(), nn.Linear(784, 7)).state_dict(), workspace / "net.safetensors")
    with pytest.raises(DefenseError, match=r"returns \(2, 7\) for 2 images, expected logits \(2, 10\)"):
        adopted(planned())


def test_what_only_a_training_needs_cannot_be_set(workspace: Path) -> None:
    made, dataset = planner()
    overrides = {"model.py:net": {"weights": "net.safetensors", "epochs": 5}}
    with pytest.raises(RequestError, match=r"model\.py:net is not trained here, so 'epochs' changes nothing"):
        made.training("model.py:net", dataset, 0, overrides)


WAYS = {
    "DataParallel": "return nn.DataParallel(net())",
    "twice wrapped": "return torch.compile(nn.DataParallel(net()))",
    "compiled": "return torch.compile(net())",
    "half": "return net().half()",
    "double": "return net().double()",
    "default arguments": "return net()",
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("way", WAYS)
def test_what_factories_return(workspace: Path, way: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    (workspace / "way.py").write_text(f"{MODEL}\nimport torch\ndef way(width=3, *a, **k):\n    {WAYS[way]}\n")
    torch.save({prefix + key: value for key, value in network().state_dict().items()}, workspace / "net.pt")
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    fill(expected := network(), workspace / "net.pt")
    assert torch.equal(adopted(planned(name="way.py:way", weights="net.pt"))(x), expected(x))
    assert ("it is run in float32" in caplog.text) == (way in ("half", "double"))


HOLDING = """
import torch
from torch import nn

def loaded():
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    net.load_state_dict(torch.load({path!r}, weights_only=True))
    return net

ready = loaded()
"""


@pytest.mark.parametrize("name", ["hold.py:loaded", "hold.py:ready"])
def test_a_factory_that_holds_its_weights_needs_no_file(workspace: Path, name: str) -> None:
    torch.save(network().state_dict(), workspace / "net.pt")
    (workspace / "hold.py").write_text(HOLDING.format(path=str(workspace / "net.pt")))
    training = planned(name=name, weights=None)
    fill(expected := network(), workspace / "net.pt")
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(adopted(training)(x), expected(x))
    assert training.digest == planned(name=name, weights=None).digest
    # Other weights are another defence, although no line of code is another.
    registry.home._OPENED.clear()
    from_factory.cache_clear()
    torch.save(network().state_dict(), workspace / "net.pt")
    assert planned(name=name, weights=None).digest != training.digest
    with pytest.raises(ArtifactError, match=r"makes other weights than a moment ago"):
        adopted(training)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("return (net(), None)", "returned a tuple; return a torch.nn.Module"),
        ("return Deep", "returned the class Deep; return a torch.nn.Module"),
        ("return None", "returned a NoneType"),
        ("return nn.Linear(784, 10, device='meta')", "on the device 'meta', without numbers"),
        ("import sys; sys.exit(0)", r"SystemExit: 0"),
        ("return unknown", r"odd\.py, line \d+: NameError"),
    ],
)
def test_what_a_factory_must_not_do(workspace: Path, text: str, sentence: str) -> None:
    (workspace / "odd.py").write_text(f"{MODEL}\ndef odd():\n    {text}\n")
    with pytest.raises(DefenseError, match=sentence):
        planned(name="odd.py:odd", weights=None)


@pytest.mark.parametrize("name", ["dice.py:Net", "dice.py:Says", "dice.py:told"])
def test_the_process_s_dice_belong_to_the_sample_once_a_network_is_declared_randomised(
    workspace: Path, name: str
) -> None:
    (workspace / "dice.py").write_text(DICE)
    made, dataset = planner()
    setting = {"weights": "net.safetensors", **({"randomized": True} if name.endswith("Net") else {})}
    training = made.training(name, dataset, 0, {name: setting})
    assert ("randomized" in training.defense.arguments) == name.endswith("Net")
    defense = adopted(training)
    assert defense.randomized
    assert defense.is_randomized(training.defense.arguments)
    draws, state = sample_draws(6), torch.get_rng_state()
    x = draws.uniform(1, 28, 28).requires_grad_()
    logits = defense(x, draws)
    logits.sum().backward()  # the graph of one image is not spoiled by the next
    turned = torch.arange(5, -1, -1)
    assert torch.equal(defense(x.detach()[turned], draws.rows(turned)), logits[turned])
    assert torch.equal(defense(x.detach()[2:3], draws.rows(slice(2, 3))), logits[2:3])
    assert not torch.equal(defense(x.detach(), draws.at("other")), logits)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_says_randomised_where_its_factory_does_not_is_named(workspace: Path) -> None:
    (workspace / "dice.py").write_text(DICE)
    with pytest.raises(DefenseError, match=r"or hidden\.randomized = True in dice\.py"):
        adopted(planned(name="dice.py:hidden"))
