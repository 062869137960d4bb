"""Checkpoints as people have them: what is in the file is found, or said to be something else."""

from __future__ import annotations

import argparse
import io
import logging
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchbox.contract.checkpoint import fill, sets, sha256
from benchbox.contract.weightfile import kind
from benchbox.errors import ArtifactError


class Net(nn.Module):
    """With a normalisation, so that it has statistics and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, 3)


class Inside(nn.Module):
    """A wrapper of somebody's own, with constants."""

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5]))
        self.add_module(name, net)


def right() -> dict[str, Tensor]:
    """The weights that have to arrive."""
    torch.manual_seed(5)
    net = Net()
    nn.init.normal_(net.bn.running_mean)  # type: ignore[arg-type]
    return net.state_dict()


def taken(
    content: Any, folder: Path, module: nn.Module | None = None, name: str = "c.pt", key: str = ""
) -> nn.Module:
    torch.save(content, folder / name)
    module = module or Net()
    fill(module, folder / f"{name}{key}")
    return module


def agrees(module: nn.Module, front: str = "") -> bool:
    state = module.state_dict()
    return all(torch.equal(state[front + k], v) for k, v in right().items() if "num_batches" not in k)


def named(front: str, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {front + key: value for key, value in (state or right()).items()}


NESTS: dict[str, Any] = {
    key: {key: right(), "epoch": 3, "loss": 0.1, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}
    for key in ("state_dict", "model_state_dict", "model", "net", "ema", "state_dict_ema", "student", "weights")
} | {
    "two deep": {"model": {"state_dict": right()}, "args": {"lr": 0.1}},
    "in a list": [right(), {"lr": 0.1}],
    "beside a score": {"best": torch.tensor(0.9), "state_dict": right()},
    "flat with a number": {**right(), "epoch": 3},
    "ordered": OrderedDict(right()),
    "parameters": {"params": {key: nn.Parameter(v) if v.is_floating_point() else v for key, v in right().items()}},
    "averaged": {"n_averaged": torch.tensor(3), **named("module.")},
}  # fmt: skip


@pytest.mark.parametrize("nest", NESTS)
def test_the_only_set_that_fits_is_taken_and_said(
    tmp_path: Path, nest: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert agrees(taken(NESTS[nest], tmp_path))
    (key,) = [key for key in sets(tmp_path / "c.pt") if "fc.weight" in str(list(sets(tmp_path / "c.pt")[key]))]
    said = [record.getMessage() for record in caplog.records]
    assert said == ([f"{tmp_path / 'c.pt'}: the weights under {key!r} are taken"] if key else [])


def test_of_several_one_is_taken_and_the_way_to_the_others_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = {key: torch.zeros_like(value) for key, value in right().items()}
    content = {"state_dict_ema": other, "state_dict": right()}
    assert agrees(taken(content, tmp_path))
    path = tmp_path / "c.pt"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} has 'state_dict', 'state_dict_ema'; state_dict is taken; "
        f"for another, --weights {path}#state_dict_ema"
    ]
    caplog.clear()
    assert not taken(content, tmp_path, key="#state_dict_ema").state_dict()["fc.weight"].any()
    assert not caplog.records
    assert len({sha256(path), sha256(Path(f"{path}#state_dict_ema"))}) == 2


def test_a_key_names_a_part_too(tmp_path: Path) -> None:
    content = {"state_dict": named("model.") | named("teacher.", {"fc.weight": torch.zeros(9)})}
    with pytest.raises(ArtifactError, match=r"c\.pt#state_dict has no 'conv\.weight' but 'model\.conv\.weight'"):
        taken(content, tmp_path)
    assert agrees(taken(content, tmp_path, key="#state_dict.model"))
    with pytest.raises(ArtifactError, match=r"has no tensors under 'ema'; it has 'state_dict'"):
        taken(content, tmp_path, key="#ema")


FRONTS = ("module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "model.module.",
          "module.model.", "backbone.net.", "_forward_module.")  # fmt: skip


@pytest.mark.parametrize("front", FRONTS)
def test_words_of_wrappers_in_the_file(tmp_path: Path, front: str) -> None:
    assert agrees(taken(named(front), tmp_path))
    assert agrees(taken({"state_dict": named(front)}, tmp_path))


@pytest.mark.parametrize("theirs", ["", "module.", "model.", "net._orig_mod."])
@pytest.mark.parametrize("ours", ["model", "net", "module"])
def test_words_of_wrappers_in_the_network(
    tmp_path: Path, theirs: str, ours: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert agrees(taken(named(theirs), tmp_path, Inside(Net(), ours)), f"{ours}.")
    assert "lacks 'mean'; what the network was built with is kept" in caplog.text
    assert agrees(taken({"mean": torch.ones(1), **named(f"{ours}.")}, tmp_path, Inside(Net(), ours)), f"{ours}.")


def test_a_word_of_a_wrapper_in_the_middle(tmp_path: Path) -> None:
    state = {key.replace("conv.", "conv.module.").replace("fc.", "fc._orig_mod."): v for key, v in right().items()}
    assert agrees(taken(state, tmp_path))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bn.running_mean": None}, "c.pt has no 'bn.running_mean'"),
        ({"fc.bias": None}, "c.pt has no 'fc.bias'"),
        ({"fc.bias": torch.zeros(4)}, r"'fc.bias' is \(4,\) where the network has \(3,\)"),
        ({"mean": torch.zeros(1)}, r"has '(module\.)?mean', which the network has not"),
        ({"fc.scale": torch.zeros(3)}, r"has '(module\.)?fc\.scale', which the network has not"),
    ],
)
def test_what_was_learned_is_never_left_out(
    tmp_path: Path, change: dict[str, Tensor | None], sentence: str
) -> None:
    state = {key: value for key, value in {**right(), **change}.items() if value is not None}
    with pytest.raises(ArtifactError, match=sentence):
        taken(state, tmp_path)
    with pytest.raises(ArtifactError, match=sentence.replace("c.pt has", "c.pt#ema has")):
        taken({"ema": named("module.", state), "optimizer": {"x": torch.zeros(1)}}, tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda w: w.to_sparse(), r"is torch\.sparse_coo; save it as a dense tensor"),
        (lambda w: w.to("meta"), "is without numbers; save it as a dense tensor"),
        (lambda w: (w * 100).to(torch.int8), r"is torch\.int8 where the network has torch\.float32"),
        (lambda w: w.to(torch.complex64), r"is torch\.complex64 where the network has torch\.float32"),
        (lambda w: w / 0 * 0, "holds NaN, so the training has diverged; take an earlier checkpoint"),
    ],
    ids=["sparse", "meta", "integers", "complex", "NaN"],
)
def test_numbers_that_are_none_are_not_cast(
    tmp_path: Path, change: Callable[[Tensor], Tensor], fault: str
) -> None:
    with pytest.raises(ArtifactError, match=rf"c\.pt: 'fc\.weight' {fault}"):
        taken({**right(), "fc.weight": change(right()["fc.weight"])}, tmp_path)


def test_a_flipped_bit_is_no_other_weight(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    torch.save(right(), file)
    content = bytearray(file.read_bytes())
    at = content.find(right()["fc.weight"].numpy().tobytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is damaged: .*data/.* is not what its checksum says"):
        fill(Net(), file)


def test_counters_may_be_there_or_not(tmp_path: Path) -> None:
    state = {key: value for key, value in right().items() if "num_batches" not in key}
    assert agrees(taken(state | {"total_ops": torch.zeros(1), "conv.total_params": torch.zeros(1)}, tmp_path))


def test_half_precision_is_read(tmp_path: Path) -> None:
    net = taken({key: value.half() for key, value in right().items()}, tmp_path)
    assert net.state_dict()["fc.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    "name", ["c.ckpt", "c.tar", "c.pth.tar", "c.bin", "c.pkl", "c.model", "c", "c.safetensors", "w.onnx"]
)
@pytest.mark.parametrize("legacy", [False, True])
def test_the_ending_says_nothing(tmp_path: Path, name: str, legacy: bool) -> None:
    torch.save(right(), tmp_path / name, _use_new_zipfile_serialization=not legacy)
    fill(net := Net(), tmp_path / name)
    assert agrees(net)
    save_file(right(), tmp_path / name)
    fill(net := Net(), tmp_path / name)
    assert agrees(net)


def archive(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name, text in members.items():
            packed.writestr(name.replace("__", "/").replace("_dot_", "."), text)
    return content.getvalue()


def tarball() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("weights.pt"))
    return content.getvalue()


def saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def scripted() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), stream)
    return stream.getvalue()


def numpy(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


OTHERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty; copy or download it again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of git-lfs; fetch"),
    "page": (b"\n<!DOCTYPE html><html><title>Sign in</title>", "is no weights file but a web page; a login"),
    "xml": (b"<?xml version='1.0'?><Error/>", "a web page"),
    "json": (b'{"error": "not found"}', "but text"),
    "text": (b"Quota exceeded\n", "but text, 'Quota'"),
    "spaces": (b"  \n", "but blank"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0:\x00", "but an ONNX model; take the network"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file, of Keras"),
    "keras 3": (archive(config_dot_json=b"", model_dot_weights_dot_h5=b""), "a model of Keras"),
    "gzip": (b"\x1f\x8b" + bytes(50), "a gzip archive; unpack it"),
    "tar": (tarball(), "a tar archive; unpack it"),
    "zip": (archive(weights_dot_pth=b"x"), r"an archive \(of weights\.pth\); unpack it"),
    "npz": (numpy(a=np.zeros(3)), "an .npz of numpy arrays"),
    "npy": (b"\x93NUMPY\x01\x00" + bytes(100), "a numpy array"),
    "gguf": (b"GGUF" + bytes(100), "a GGUF file"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle of Python objects; what it holds could be code"),
    "script": (scripted(), r"a TorchScript program; load it with torch\.jit\.load"),
    "cut short": (saved({"a": torch.zeros(1000)})[:900], "is cut short or damaged"),
    "legacy cut short": (saved({"a": torch.zeros(1000)}, _use_new_zipfile_serialization=False)[:300], "damaged"),
    "random": (bytes(range(144, 256)) * 9, "but something unknown, or damaged"),
    "safetensors cut short": (b"\x40\x00\x00\x00\x00\x00\x00\x00{\"a\":", "is no safetensors file"),
    "whole model": (saved(nn.Sequential(nn.Linear(2, 2))), r"whole pickled model \(torch\.nn.*weights_only=False"),
    "whole model inside": (saved({"net": Net()}), r"a whole pickled model \(.*\.Net\), which is code"),
    "arguments": (saved({"state_dict": {}, "args": argparse.Namespace(lr=1)}), "holds argparse.Namespace beside"),
    "no tensors": (saved({"epoch": 3}), "is no state_dict; save module"),
    "one tensor": (saved(torch.zeros(3)), "is no state_dict; save module"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["c.pth", "c.safetensors"])
@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_checkpoint_is_named_with_the_way_out(tmp_path: Path, other: str, name: str) -> None:
    content, sentence = OTHERS[other]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=sentence) as caught:
        sets(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_nothing_is_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "went off",))

    for legacy in (False, True):
        torch.save({"state_dict": right(), "x": Bomb()}, tmp_path / "c.pt", _use_new_zipfile_serialization=legacy)
        with pytest.raises(ArtifactError, match="unpickled"):
            sets(tmp_path / "c.pt")
    assert not (tmp_path / "went off").exists()


def test_a_folder_names_its_files(tmp_path: Path) -> None:
    save_file(right(), tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"is a folder; name the file in it \(model\.safetensors\)"):
        kind(tmp_path)


def test_a_stop_in_a_name_is_a_name(tmp_path: Path) -> None:
    torch.save(right(), tmp_path / "c#1.pt")
    fill(net := Net(), tmp_path / "c#1.pt")
    assert agrees(net)
    assert logging.getLogger("benchbox").name == "benchbox"


def test_a_part_that_fits_is_named(tmp_path: Path) -> None:
    for kept, key in (({"state_dict": named("model.") | {"loss.weight": torch.ones(3)}}, "state_dict.model"),
                      (named("net.") | {"teacher.conv.bias": torch.ones(2)}, "net")):  # fmt: skip
        with pytest.raises(ArtifactError, match=rf", or take the part of it that fits: --weights .*#{key}$"):
            taken(kept, tmp_path)
        assert agrees(taken(kept, tmp_path, key=f"#{key}"))
    with pytest.raises(ArtifactError, match=r"build the network the weights were saved from$"):
        taken(named("model.") | {"loss.weight": torch.ones(3), "model.more": torch.ones(3)}, tmp_path)
