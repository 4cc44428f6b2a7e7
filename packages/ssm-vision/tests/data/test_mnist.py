from __future__ import annotations

import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

from ssm_core.errors import DataError
from ssm_vision.data import mnist


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes in the idx format: magic number, sizes big-endian, data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A root with a tiny MNIST: seven training and three test images."""
    random = np.random.default_rng(0)
    for (images, labels), count in zip(mnist.FILES.values(), (7, 3), strict=True):
        folder = tmp_path / "MNIST" / "raw"
        write_idx(folder / images, random.integers(0, 256, (count, 28, 28)))
        write_idx(folder / labels, np.arange(count))
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_reads_idx_files(fake: Path) -> None:
    bundle = mnist.build(mnist.MnistOptions(root=str(fake)))
    assert (len(bundle.train), len(bundle.evaluation)) == (7, 3)
    images, labels = bundle.train.__getitems__([6, 2])
    assert images.shape == (2, 1, 28, 28)
    assert labels.tolist() == [6, 2]
    raw = (fake / "MNIST" / "raw" / mnist.FILES["train"][0]).read_bytes()[
        16 + 2 * 784 : 16 + 3 * 784
    ]
    expected = (torch.tensor(list(raw)) / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(images[1].flatten(), expected, rtol=1e-5, atol=1e-5)


def test_missing_files_without_download(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        mnist.build(mnist.MnistOptions(root=str(tmp_path), download=False))
    message = str(caught.value)
    folder = tmp_path / "MNIST" / "raw"
    assert message.startswith("mnist: no train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-")
    assert f"in {folder}, and data.download is false: put the unpacked files into" in message
    assert "--data.root FOLDER" in message
    assert "\n" not in message


@pytest.mark.usefixtures("offline")
def test_missing_files_without_network(fake: Path) -> None:
    (fake / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        mnist.build(mnist.MnistOptions(root=str(fake)))
    message = str(caught.value)
    assert message.startswith("mnist: no t10k-labels-idx1-ubyte in ")
    assert "the download failed (Error downloading" in message
    assert "Name or service not known" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", [name for pair in mnist.FILES.values() for name in pair])
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_file_is_named(fake: Path, name: str, damage: str) -> None:
    path = fake / "MNIST" / "raw" / name
    content = {"cut": path.read_bytes()[:-1], "text": b"<html>not found</html>", "empty": b""}
    path.write_bytes(content[damage])
    with pytest.raises(DataError, match=f"{path}: damaged"):
        mnist.build(mnist.MnistOptions(root=str(fake), download=False))


def test_files_that_do_not_belong_together(fake: Path) -> None:
    folder = fake / "MNIST" / "raw"
    write_idx(folder / "t10k-labels-idx1-ubyte", np.array([1, 2, 11]))
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: damaged, expected 3 labels"):
        mnist.build(mnist.MnistOptions(root=str(fake)))
    write_idx(folder / "train-images-idx3-ubyte", np.zeros((7, 8, 8)))
    with pytest.raises(DataError, match=r"images of \(8, 8\), expected \(28, 28\)"):
        mnist.build(mnist.MnistOptions(root=str(fake)))


def test_the_real_files(data_root: Path) -> None:
    if not (data_root / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {data_root} (SSM_DATA_ROOT)")
    bundle = mnist.build(mnist.MnistOptions(root=str(data_root), download=False))
    assert (len(bundle.train), len(bundle.evaluation)) == (60_000, 10_000)
    images, labels = bundle.train.__getitems__(range(60_000))
    assert float(images.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(images.std()) == pytest.approx(1.0, abs=1e-3)
    assert labels.bincount().tolist()[:3] == [5923, 6742, 5958]


def test_fashion_mnist_has_files_and_augmentation_of_its_own(fake: Path) -> None:
    (fake / "MNIST").rename(fake / "FashionMNIST")
    options = mnist.FashionMnistOptions(root=str(fake), train_examples=5, randaugment=9.0)
    bundle = mnist.build_fashion(options)
    assert (len(bundle.train), len(bundle.evaluation)) == (5, 3)
    assert bundle.info.labels[0] == "T-shirt/top"
    first, second = (bundle.train.__getitems__(range(5))[0] for _ in range(2))
    assert torch.equal(first, second)  # only with augment
    augmented = mnist.build_fashion(
        mnist.FashionMnistOptions(root=str(fake), augment=True, randaugment=9.0)
    )
    first, second = (augmented.train.__getitems__(range(7))[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_fashion_mnist_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fashion-mnist: no train-images-idx3-ubyte") as caught:
        mnist.build_fashion(mnist.FashionMnistOptions(root=str(tmp_path), download=False))
    assert f"in {tmp_path}/FashionMNIST/raw" in str(caught.value)


def test_part_of_mnist(fake: Path) -> None:
    options = mnist.MnistOptions(root=str(fake), train_examples=4, eval_examples=2)
    bundle = mnist.build(options)
    assert (len(bundle.train), len(bundle.evaluation)) == (4, 2)
    assert bundle.train.labels.tolist() == mnist.build(options).train.labels.tolist()
