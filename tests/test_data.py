"""Data sets: what is in them, where they come from, and what is said of those that do not fit."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchbox.data import catalogue, sources
from benchbox.data.dataset import Dataset, Images, data_folder, load, sample_list
from benchbox.domain import SampleList
from benchbox.errors import DataError, RequestError

needs_real_data = pytest.mark.skipif("BENCHBOX_DATA" not in os.environ, reason="BENCHBOX_DATA is not set")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", Path("/nonexistent"))


def arrays(**changes: Any) -> dict[str, Any]:
    """A sound data set of 3 classes, 12 training and 6 test images of 8×8 pixels, partly replaced."""
    x = np.arange(18 * 8 * 8 * 3, dtype=np.uint32).astype(np.uint8).reshape(18, 8, 8, 3)
    y = np.arange(18) % 3
    return {"x_train": x[:12], "y_train": y[:12], "x_test": x[12:], "y_test": y[12:], **changes}


def save(folder: Path, name: str = "own", **changes: Any) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, **{key: value for key, value in arrays(**changes).items() if value is not None})
    return path


def test_catalogue_needs_no_torch() -> None:
    code = "import benchbox.data.catalogue as c, sys; print(len(c.KNOWN), *({'torch', 'numpy'} & {*sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["7"]
    assert all("\n" not in entry.summary for entry in catalogue.KNOWN.values())


def test_every_known_name_has_a_source() -> None:
    assert {"digits", *sources.SOURCES} == set(catalogue.KNOWN)


def test_digits(digits: Dataset) -> None:
    assert digits.train.x.shape == (1437, 1, 28, 28)
    assert digits.test.x.shape == (360, 1, 28, 28)
    assert digits.train.x.dtype == torch.uint8
    assert digits.train.y.dtype == torch.int64
    assert digits.test.y.bincount().tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert (digits.family, digits.norm, digits.epsilon) == ("mnist", "linf", 0.3)
    assert (digits.spec.channels, digits.spec.size, digits.spec.classes) == (1, 28, 10)
    # Published results name these digests: a change of pixels or of the split must not go unnoticed.
    assert digits.train.digest.startswith("dffea9b0ae96")
    assert digits.test.digest.startswith("a6fb60619300")


def test_digits_are_those_of_scikit_learn(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    # 28 = 3.5 × 8, so the blocks of 7 pixels average two by two pixels of the original, up to interpolation.
    original = torch.from_numpy(load_digits().images).mean((1, 2)).sort().values * 255 / 16
    ours = torch.cat([digits.train.x, digits.test.x]).double().mean((1, 2, 3)).sort().values
    torch.testing.assert_close(ours, original, rtol=0, atol=6)
    assert int(digits.train.x.max()) == 255


def test_training_and_test_images_are_disjoint(digits: Dataset) -> None:
    train = {row.numpy().tobytes() for row in digits.train.x}
    assert not any(row.numpy().tobytes() in train for row in digits.test.x)


def test_statistics_are_those_of_the_training_set(tmp_path: Path) -> None:
    dataset = load("own", save(tmp_path).parent)
    x = arrays()["x_train"] / 255
    assert dataset.spec.mean == pytest.approx(tuple(x.mean((0, 1, 2))), abs=1e-12)
    assert dataset.spec.std == pytest.approx(tuple(x.std((0, 1, 2))), abs=1e-12)


def test_a_constant_channel_has_a_positive_deviation(tmp_path: Path) -> None:
    x = arrays()["x_train"].copy()
    x[..., 1] = 7
    dataset = load("own", save(tmp_path, x_train=x).parent)
    assert dataset.spec.std[1] == 1 / 255


def test_batches_are_scaled_and_in_order() -> None:
    images = Images(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.tensor([4, 5, 6]))
    for indices in (torch.tensor([2, 0, 1]), [2, 0, 1]):
        x, y = images.batch(indices)
        assert x.dtype == torch.float32
        torch.testing.assert_close(x.flatten(), torch.tensor([1.0, 0.0, 0.2]))
        assert y.tolist() == [6, 4, 5]
    x, _ = images.batch(slice(1, None))
    x.zero_()
    assert images.x.flatten().tolist() == [0, 51, 255]
    assert len(images.batch([])[1]) == 0


def test_digest_sees_pixels_labels_and_shape_but_not_memory_layout() -> None:
    x, y = torch.arange(48, dtype=torch.uint8).view(2, 3, 2, 4), torch.tensor([0, 1])
    digest = Images(x, y).digest
    assert digest == Images(x.to(memory_format=torch.channels_last), y.clone()).digest
    different = [Images(x + 1, y), Images(x, 1 - y), Images(x.view(2, 3, 4, 2), y)]
    assert len({digest, *(images.digest for images in different)}) == 4


def test_sample_list_is_the_first_n(digits: Dataset) -> None:
    samples = sample_list(digits, 5)
    assert (samples.dataset, samples.split, samples.indices) == ("digits", "test", (0, 1, 2, 3, 4))
    assert samples.digest == digits.test.rows([0, 1, 2, 3, 4]).digest
    assert samples.digest != sample_list(digits, 6).digest
    assert SampleList.from_dict(samples.as_dict()) == samples
    assert len(sample_list(digits)) == 360
    assert sample_list(digits, 5, "train").digest == digits.train.rows(slice(5)).digest


def test_random_lists_repeat_and_the_shorter_is_the_beginning_of_the_longer(digits):
    five, ten = (sample_list(digits, n, seed=3) for n in (5, 10))
    assert five.indices == ten.indices[:5] != tuple(range(5))
    assert len(set(ten.indices)) == 10
    assert five == sample_list(digits, 5, seed=3) == SampleList.from_dict(five.as_dict())
    assert five.indices != sample_list(digits, 5, seed=4).indices
    assert five.digest == digits.test.rows(five.indices).digest
    assert (five.said, sample_list(digits, 5).said) == (
        "5 random test images (seed 3)",
        "the first 5 test images",
    )


def test_sample_list_defaults_to_1000_or_what_there_is(tmp_path: Path) -> None:
    assert len(sample_list(load("own", save(tmp_path).parent))) == 6
    x = np.random.default_rng(0).integers(0, 256, (1200, 4, 4)).astype(np.uint8)
    y = np.arange(1200) % 2
    save(tmp_path, "many", x_train=x, y_train=y, x_test=x, y_test=y)
    assert len(sample_list(load("many", tmp_path))) == 1000


def test_sample_list_refuses_what_is_not_there(digits: Dataset) -> None:
    with pytest.raises(DataError, match="asked for 361 test images of digits, which has 360"):
        sample_list(digits, 361)
    with pytest.raises(DataError, match="asked for 0"):
        sample_list(digits, 0)
    with pytest.raises(RequestError, match="unknown split 'tset'; did you mean test"):
        sample_list(digits, 1, "tset")


def test_npz_colour_and_grey(tmp_path: Path) -> None:
    colour = load("own", save(tmp_path).parent)
    assert colour.train.x.shape == (12, 3, 8, 8)
    assert colour.train.x[5, 2, 1, 7] == arrays()["x_train"][5, 1, 7, 2]
    assert (colour.family, colour.epsilon, colour.spec.classes) == ("cifar", 8 / 255, 3)
    x = arrays()["x_train"][..., 0]
    grey = load(
        "grey",
        save(tmp_path, "grey", x_train=x, x_test=x[:6], y_train=arrays()["y_train"].astype(np.uint8)).parent,
    )
    assert grey.train.x.shape == (12, 1, 8, 8)
    assert (grey.family, grey.epsilon) == ("mnist", 0.3)
    assert torch.equal(grey.train.y, colour.train.y)


def test_npz_wins_over_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((4, 28, 28), np.uint8)
    save(tmp_path, "mnist", x_train=x, x_test=x[:2], y_train=np.array([1, 2, 3, 9]), y_test=np.array([0, 5]))
    monkeypatch.setenv("BENCHBOX_DATA", str(tmp_path))
    dataset = load("mnist")
    assert (len(dataset.train), dataset.spec.classes, dataset.family) == (4, 10, "mnist")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "has no y_test .it has x_train, y_train, x_test"),
        ({"x_train": np.linspace(-1, 1, 2304).reshape(12, 8, 8, 3)}, r"uint8 0.* got float64 in \[-1, 1\]"),
        ({"x_train": np.full((12, 8, 8, 3), 9)}, r"got int64 in \[9, 9\] in x_train; .* x\.astype"),
        ({"x_test": np.zeros((6, 8, 8, 3), np.float32)}, r"got float32 in \[0, 0\] in x_test"),
        ({"x_train": np.full((12, 8, 8, 3), None)}, "cannot be read .*allow_pickle"),
        ({"x_train": np.zeros((12, 8, 8, 4), np.uint8)}, r"x_train has 4 channels; .* x_train\[\.\.\., :3\]"),
        ({"x_train": np.zeros((12, 64), np.uint8)}, r"got shape \(12, 64\)"),
        ({"x_test": np.zeros((0, 8, 8, 3), np.uint8), "y_test": np.zeros(0, int)}, "at least one"),
        ({"x_test": np.zeros((6, 9, 9, 3), np.uint8)}, r"\(C, H, W\) = \(3, 8, 8\) and x_test \(3, 9, 9\)"),
        ({"y_train": np.arange(11) % 3}, "12 images and y_train 11 labels"),
        ({"y_train": np.arange(12) % 3 + 0.5}, "y_train has the label 0.5; give whole class numbers"),
        ({"y_train": np.full((12, 3), 1 / 3)}, r"\(12, 3\) and not one-hot; .* y_train\.argmax\(1\)"),
        ({"y_train": np.full((12, 3, 1), 1)}, r"y_train must be integers \(N,\), got int64 \(12, 3, 1\)"),
        ({"y_train": np.full(12, np.nan)}, "y_train has the label nan"),
        ({"classes": np.array(1)}, "classes is int64 .*; give their number, at least 2"),
        ({"classes": np.array(2)}, "labels 0 to 2, but the classes are 0 to 1"),
        ({"y_train": np.arange(12) % 3 - 1}, "labels -1 to 1, but the classes are 0 to 1"),
        ({"y_test": np.full(6, 3)}, "y_test has labels 3 to 3, but the classes are 0 to 2"),
        ({"y_train": np.arange(12) % 3 + 1}, "y_train has no image of class 0"),
        ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "one class only"),
        ({"y_train": np.full(12, 10**12)}, "no image of class 0"),
    ],
)  # fmt: skip
def test_npz_is_checked(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = save(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        load("own", tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_npz_under_a_known_name_must_fit_it(tmp_path: Path) -> None:
    save(tmp_path, "cifar10")
    with pytest.raises(DataError, match=r"cifar10 has images \(C, H, W\) = \(3, 32, 32\), got \(3, 8, 8\)"):
        load("cifar10", tmp_path)
    x = np.zeros((12, 28, 28), np.uint8)
    save(tmp_path, "mnist", x_train=x, x_test=x[:6], y_train=np.arange(12))
    with pytest.raises(DataError, match="y_train has labels 0 to 11, but the classes are 0 to 9"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off", pickle.dumps({"x_train": 0})])
def test_npz_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load("own", tmp_path)


def test_npz_that_is_a_bare_array(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.zeros(3))
    (tmp_path / "own.npy").rename(tmp_path / "own.npz")
    with pytest.raises(DataError, match="cannot be read"):
        load("own", tmp_path)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="unknown data set 'mnits'; did you mean mnist"):
        load("mnits", tmp_path)
    save(tmp_path, "street-signs")
    with pytest.raises(RequestError, match="did you mean street-signs"):
        load("street-sign", tmp_path)
    with pytest.raises(RequestError, match=r"known: .*; or put your own images in .*qqq\.npz"):
        load("qqq", tmp_path)


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHBOX_DATA", str(tmp_path / "named"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder() == tmp_path / "named"
    monkeypatch.delenv("BENCHBOX_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == tmp_path / ".cache" / "benchbox" / "data"


@pytest.mark.parametrize("name", sorted(sources.SOURCES))
def test_missing_files_without_download(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"nothing is downloaded.*place .* in .*--data-dir") as caught:
        load(name, tmp_path, download=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_failed_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    told: list[str] = []
    with pytest.raises(DataError, match=r"mnist could not be downloaded to .*refused.*MNIST/raw") as caught:
        load("mnist", tmp_path, progress=told.append)
    assert "\n" not in str(caught.value)
    assert told == [f"downloading mnist to {tmp_path}"]
    assert capsys.readouterr().out == ""


def write_idx(path: Path, content: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, content.ndim]) + b"".join(n.to_bytes(4, "big") for n in content.shape)
    path.write_bytes(header + content.astype(np.uint8).tobytes())


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, train: int, test: int) -> None:
    small = {**catalogue.KNOWN, name: replace(catalogue.KNOWN[name], train=train, test=test)}
    monkeypatch.setattr("benchbox.data.dataset.KNOWN", small)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str) -> None:
    pixels = np.arange(5 * 784).reshape(5, 28, 28) % 251
    for part, n in (("train", 5), ("t10k", 2)):
        write_idx(tmp_path / folder / "raw" / f"{part}-images-idx3-ubyte", pixels[:n])
        write_idx(tmp_path / folder / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n))
    with pytest.raises(DataError, match="has 5 training images instead of 60000; delete"):
        load(name, tmp_path)
    shrink(monkeypatch, name, 5, 2)
    dataset = load(name, tmp_path, download=False)
    assert dataset.train.x[:, 0].tolist() == pixels.tolist()
    assert dataset.train.y.tolist() == [0, 1, 2, 3, 4]
    assert len(dataset.test) == 2
    assert dataset.spec.classes == 10


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_turned_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)

    def stub(folder: Path, *, train: bool, download: bool) -> Any:
        return SimpleNamespace(
            data=pixels if train else pixels[:2], targets=[3, 1, 4, 1, 5, 9][: 6 if train else 2]
        )

    monkeypatch.setattr(f"torchvision.datasets.{name.upper()}", stub)
    shrink(monkeypatch, name, 6, 2)
    dataset = load(name, tmp_path)
    assert dataset.train.x[4, 2, 30, 7] == pixels[4, 30, 7, 2]
    assert dataset.train.x.is_contiguous()
    assert dataset.train.y.tolist() == [3, 1, 4, 1, 5, 9]
    assert len(dataset.test) == 2


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.io
    from torchvision import datasets

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 3)).astype(np.uint8)
    for split in ("train", "test"):
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9]])})
    # Only the checksum is left out: these are not the published files.
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    shrink(monkeypatch, "svhn", 3, 3)
    dataset = load("svhn", tmp_path, download=False)
    assert dataset.train.x[2, 1, 5, 6] == pixels[5, 6, 1, 2]
    assert dataset.train.y.tolist() == [0, 1, 9]


def test_imagenette_is_resized_cropped_and_shuffled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    for split in ("train", "val"):
        for label, folder in enumerate(["n01440764", "n02102040", "n02979186"]):
            (tmp_path / "imagenette2-160" / split / folder).mkdir(parents=True)
            for index in range(4):
                # Grey level and class go together; the borders that the crop removes are white.
                image = Image.new("L" if index == 0 else "RGB", (400, 200), "white")
                image.paste(Image.new(image.mode, (220, 200), (60 * label,) * len(image.getbands())), (90, 0))
                image.save(tmp_path / "imagenette2-160" / split / folder / f"{index}.jpeg", quality=100)
    shrink(monkeypatch, "imagenette", 12, 12)
    dataset = load("imagenette", tmp_path, download=False)
    assert dataset.train.x.shape == (12, 3, 160, 160)
    levels = dataset.train.x.float().mean((1, 2, 3))
    assert levels.tolist() == pytest.approx((60.0 * dataset.train.y).tolist(), abs=2)
    assert dataset.train.y.tolist() != sorted(dataset.train.y.tolist())
    assert dataset.digest == load("imagenette", tmp_path, download=False).digest


@needs_real_data
@pytest.mark.parametrize(
    ("name", "mean", "std", "labels"),
    [
        ("mnist", (0.1307,), (0.3081,), [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
        ("fashion-mnist", (0.2860,), (0.3530,), [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]),
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]),
    ],
)
def test_real_data(name: str, mean: tuple[float], std: tuple[float], labels: list[int]) -> None:
    try:
        dataset = load(name, download=False)
    except DataError as error:
        pytest.skip(str(error))
    # The statistics every training script has hard-coded, and the first ten test labels.
    assert dataset.spec.mean == pytest.approx(mean, abs=6e-5)
    assert dataset.spec.std == pytest.approx(std, abs=6e-5)
    assert dataset.test.y[:10].tolist() == labels
