"""Data sets as people have them: labels of every kind, test sets alone, paths, folders, oblong images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Said, refusal
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from benchbox.data.dataset import Dataset, load
from benchbox.errors import DataError, RequestError

CLASS = np.arange(12) % 3


def own(folder: Path, name: str = "own", shape: tuple[int, ...] = (8, 8, 3), **arrays: Any) -> Path:
    """An .npz of a test set of 12 images, and of what else is given; None takes away."""
    folder.mkdir(exist_ok=True, parents=True)
    x = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    content = {"x_test": x, "y_test": CLASS, **arrays}
    np.savez(folder / f"{name}.npz", **{key: value for key, value in content.items() if value is not None})
    return folder / f"{name}.npz"


LABELS: dict[str, tuple[Any, str]] = {
    "one-hot": (np.eye(3, dtype=int)[CLASS], r"y_test is one-hot; its argmax\(1\) is taken"),
    "one-hot floats": (np.eye(3, dtype=np.float32)[CLASS], r"argmax\(1\)"),
    "one-hot truth values": (np.eye(3, dtype=bool)[CLASS], r"argmax\(1\)"),
    "a column": (CLASS[:, None], r"shape \(12, 1\); its column is taken"),
    "a column of floats": (CLASS[:, None] * 1.0, "its whole numbers are taken"),
    "whole floats": (CLASS.astype(np.float32), "y_test is float32; its whole numbers are taken"),
    "digits": (CLASS.astype(str), "labels are texts; the numbers they spell are taken"),
    "names": (np.array(["cat", "dog", "emu"])[CLASS], "numbered in their order, 'cat' = 0, 'dog' = 1, 'emu' = 2"),
    "bytes": (np.array([b"cat", b"dog", b"emu"])[CLASS], "'cat' = 0, 'dog' = 1"),
    "unsigned": (CLASS.astype(np.uint8), ""),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_converted_and_said(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    y, sentence = LABELS[kind]
    own(tmp_path, y_test=y)
    dataset = load("own", tmp_path)
    assert dataset.test.y.tolist() == CLASS.tolist()
    assert dataset.spec.classes == 3
    if sentence:
        import re

        assert re.search(sentence, caplog.text)
        assert str(tmp_path / "own.npz") in caplog.text
    else:
        assert not caplog.text


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda x: (x / 255).astype(np.float32), "convert them with (255 * x).round().astype('uint8')"),
        (lambda x: x.astype(np.float32), "convert them with x.round().astype('uint8')"),
        (lambda x: x.astype(np.int64), "convert them with x.astype('uint8')"),
        (lambda x: x > 100, "convert them with 255 * x.astype('uint8')"),
        (lambda x: x.astype(np.int64) * 2, "save them as they were before they were normalised"),
        (lambda x: x / 127.5 - 1, "save them as they were before they were normalised"),
        (lambda x: np.where(x > 200, np.nan, x / 255), "save them as they were before they were normalised"),
    ],
    ids=["[0, 1]", "[0, 255]", "whole numbers", "truth values", "[0, 510]", "[-1, 1]", "NaN"],
)
def test_no_remedy_wraps_around(tmp_path: Path, change: Any, remedy: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    own(tmp_path, x_test=change(x))
    with pytest.raises(DataError) as caught:
        load("own", tmp_path)
    assert remedy in str(caught.value)


def test_a_name_that_leads_to_no_file(tmp_path: Path) -> None:
    (tmp_path / "own.npz").mkdir()
    (tmp_path / "link.npz").symlink_to("nowhere.npz")
    for name in ("own", "link"):
        with pytest.raises(DataError, match="is no file, but a folder or a link to nothing"):
            load(name, tmp_path)


def test_an_empty_training_set_is_left_out(tmp_path: Path) -> None:
    own(tmp_path, x_train=np.zeros((0, 8, 8, 3), np.uint8), y_train=CLASS[:0])
    with pytest.raises(DataError, match="x_train is empty; leave it and y_train out"):
        load("own", tmp_path)


def test_names_are_numbered_over_both_sets(tmp_path: Path) -> None:
    x = np.zeros((4, 8, 8), np.uint8)
    own(tmp_path, x_test=x[:2], y_test=np.array(["b", "c"]), x_train=x, y_train=np.array(["c", "a", "b", "a"]))
    dataset = load("own", tmp_path)
    assert (dataset.train.y.tolist(), dataset.test.y.tolist()) == ([2, 0, 1, 0], [1, 2])


def test_ten_comes_after_two(tmp_path: Path) -> None:
    own(tmp_path, y_test=(np.arange(12) % 11).astype(str))
    assert load("own", tmp_path).test.y.tolist() == (np.arange(12) % 11).tolist()


def test_channels_may_come_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = own(tmp_path, shape=(3, 8, 6))
    dataset = load("own", tmp_path)
    assert torch.equal(dataset.test.x, torch.from_numpy(np.load(path)["x_test"]))
    assert "its channels are taken to come first" in caplog.text


def test_the_number_of_classes_can_be_said(tmp_path: Path) -> None:
    own(tmp_path, classes=np.array(10))
    assert load("own", tmp_path).spec.classes == 10


def test_a_test_set_alone(tmp_path: Path) -> None:
    own(tmp_path)
    dataset = load("own", tmp_path)
    assert (len(dataset.train), len(dataset.test), dataset.spec.classes) == (0, 12, 3)
    with pytest.raises(DataError, match=r"has no y_train \(it has x_test, y_test, x_train\); save it"):
        load("half", own(tmp_path, "half", x_train=np.zeros((2, 8, 8, 3), np.uint8)).parent)


def test_square_images_have_no_width_of_their_own(tmp_path: Path) -> None:
    own(tmp_path)
    own(tmp_path, "wide", (8, 12, 3))
    square, wide = load("own", tmp_path).spec, load("wide", tmp_path).spec
    assert (square.size, square.width, square.shape) == (8, None, (3, 8, 8))
    assert (wide.size, wide.width, wide.shape) == (8, 12, (3, 8, 12))


# ---- paths and folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data/own.npz", "./data/own.npz", "own.npz", "own"])
def test_a_path_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    own(tmp_path / "data")
    assert load(name, tmp_path / "data").name == "own"
    assert load(str(tmp_path / "data" / "own.npz"), tmp_path).digest == load("own", tmp_path / "data").digest


@pytest.mark.parametrize("name", ["data/owm.npz", "owm.npz", "nowhere/at/all"])
def test_a_path_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=f"no data set at {name}, neither here nor in .*; give the path"):
        load(name, tmp_path)


def images(
    folder: Path, mode: str = "RGB", size: tuple[int, int] = (6, 8), n: int = 3, ending: str = "png"
) -> None:
    rng = np.random.default_rng(1)
    for name in ("ant", "bee", "cow"):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            shape = (size[1], size[0], 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).convert(mode).save(
                folder / name / f"{i}.{ending}"
            )


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_folder_of_class_folders(tmp_path: Path, test: str, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path / "zoo" / "train", n=4)
    images(tmp_path / "zoo" / test)
    (tmp_path / "zoo" / "train" / "ant" / "README.txt").write_text("no image")
    dataset = load(str(tmp_path / "zoo"))
    assert (dataset.name, dataset.train.x.shape, dataset.test.x.shape) == ("zoo", (12, 3, 8, 6), (9, 3, 8, 6))
    assert dataset.test.y.bincount().tolist() == [3, 3, 3]
    assert dataset.test.y.tolist() != sorted(dataset.test.y.tolist())
    assert "3 classes, numbered in their order: ant = 0, bee = 1, cow = 2" in caplog.text
    first = np.asarray(Image.open(tmp_path / "zoo" / test / "bee" / "0.png")).transpose(2, 0, 1)
    assert any(np.array_equal(first, x) and y == 1 for x, y in zip(dataset.test.x, dataset.test.y, strict=True))
    assert load(str(tmp_path / "zoo")).digest == dataset.digest


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("P", 3), ("RGBA", 3), ("RGB", 3)])
def test_kinds_of_images(tmp_path: Path, mode: str, channels: int) -> None:
    images(tmp_path / "zoo", mode)
    dataset = load(str(tmp_path / "zoo"))
    assert (len(dataset.train), dataset.test.x.shape) == (0, (9, channels, 8, 6))


def test_what_a_folder_has_to_hold(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    with pytest.raises(
        DataError, match=r"zoo has no images in class folders; lay them as zoo/test/CLASS/IMAGE\.png"
    ):
        load(str(tmp_path / "zoo"))
    images(tmp_path / "zoo")
    Image.new("RGB", (9, 9)).save(tmp_path / "zoo" / "ant" / "odd.png")
    with pytest.raises(DataError, match=r"images of 8×6 \(.*\) and 9×9 \(odd\.png\) pixels; resize"):
        load(str(tmp_path / "zoo"))
    (tmp_path / "zoo" / "ant" / "odd.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"odd\.png is no image that can be read"):
        load(str(tmp_path / "zoo"))


# ---- the command line ---------------------------------------------------------------------------------------

MODEL = """
from torch import nn

class network(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
    def forward(self, x):
        return self.fc(x.expand(-1, 3, -1, -1).mean((2, 3)))
"""


@pytest.fixture
def checkpoint(workspace: Path) -> tuple[str, ...]:
    (workspace / "model.py").write_text(MODEL)
    torch.manual_seed(0)
    save_file(
        {f"fc.{key}": value for key, value in nn.Linear(3, 3).state_dict().items()}, workspace / "w.safetensors"
    )
    words = "--defense model.py:network --weights w.safetensors --attacks fgsm,square --samples 9 --quiet"
    return tuple(words.split())


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 12, 3), (12, 8)])
@pytest.mark.parametrize("way", ["name", "path"])
def test_a_checkpoint_is_run_on_a_test_set_alone(
    said: Said, checkpoint: tuple[str, ...], workspace: Path, shape: tuple[int, ...], way: str
) -> None:
    path = own(workspace / "data", shape=shape)
    name = "own" if way == "name" else str(path.relative_to(workspace))
    status, out, err = said("run", *checkpoint, "--dataset", name)
    assert (status, err) == (0, "")
    assert "2 cells done" in out
    assert "2 reused" in said("run", *checkpoint, "--dataset", "own")[1]


def test_a_folder_is_run(said: Said, checkpoint: tuple[str, ...], workspace: Path) -> None:
    images(workspace / "zoo")
    status, out, err = said("run", *checkpoint, "--dataset", "zoo")
    assert status == 0, err
    assert "2 cells done" in out


@pytest.mark.parametrize("defense", ["none", "pssr"])
def test_what_is_trained_needs_training_images(said: Said, workspace: Path, defense: str) -> None:
    own(workspace / "data")
    error = refusal(said("run", "--defense", defense, "--dataset", "own", "--quiet"))
    assert "is trained here, and own has no training images; add x_train and y_train" in error
    assert "--weights FILE" in error


def test_a_network_of_ours_takes_square_images(said: Said, workspace: Path) -> None:
    x = np.zeros((12, 8, 12, 3), np.uint8)
    own(workspace / "data", shape=(8, 12, 3), x_train=x, y_train=CLASS)
    error = refusal(said("run", "--defense", "none", "--attacks", "fgsm", "--dataset", "own", "--quiet"))
    assert "none is built for square images, own has 8×12 pixels; crop or pad them, or bring a network" in error


def test_dataset_is_whole(tmp_path: Path) -> None:
    dataset: Dataset = load("own", own(tmp_path).parent)
    assert dataset.spec.mean != ()


def test_images_of_more_than_eight_bits_are_refused_not_made_white(tmp_path: Path) -> None:
    (tmp_path / "deep" / "test" / "cat").mkdir(parents=True)
    (tmp_path / "deep" / "test" / "dog").mkdir()
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "deep" / "test" / "cat" / "0.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "deep" / "test" / "dog" / "0.png")
    with pytest.raises(DataError, match=r"0\.png has numbers of more than 8 bits \(mode I;16\); save it with 8"):
        load(str(tmp_path / "deep"))
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "deep" / "test" / "cat" / "0.tif")
    (tmp_path / "deep" / "test" / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match=r"more than 8 bits \(mode F\)"):
        load(str(tmp_path / "deep"))
    own(tmp_path, x_test=np.full((12, 8, 8), 65535, np.uint16))
    with pytest.raises(DataError, match=r"uint16 in \[65535, 65535\].*\(x // 257\)"):
        load("own", tmp_path)


def test_transparent_pixels_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.full((8, 8, 4), 255, np.uint8)
    for place, alpha in enumerate((255, 255, 0)):
        (tmp_path / "clear" / str(place)).mkdir(parents=True)
        pixels[0, 0, 3] = alpha
        Image.fromarray(pixels).save(tmp_path / "clear" / str(place) / f"{place}.png")
    assert int(load(str(tmp_path / "clear")).test.x.min()) == 255
    assert (
        "clear: 1 images have transparent pixels, the first is 2.png; what colour lies there is taken"
        in caplog.text
    )


def test_test_images_that_are_trained_on_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = np.random.default_rng(1).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    own(tmp_path, x_train=x, y_train=CLASS)
    load("own", tmp_path)
    assert "training images" not in caplog.text
    own(tmp_path, x_train=x, y_train=CLASS, x_test=np.concatenate([255 - x[:9], x[4:7]]))
    load("own", tmp_path)
    assert "own.npz: 3 of 12 test images are training images, too, the first is number 9" in caplog.text
