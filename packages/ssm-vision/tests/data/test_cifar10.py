from __future__ import annotations

import hashlib
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from ssm_core.errors import DataError
from ssm_vision.data import cifar10, cifar100


def encoded(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_parquet(path: Path, images: np.ndarray, labels: list[int]) -> None:
    """The layout of the data set on the Hugging Face Hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    column = [{"bytes": encoded(pixels), "path": f"{i}.png"} for i, pixels in enumerate(images)]
    pq.write_table(pa.table({"img": column, "label": labels}), path)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def fake(tmp_path: Path, pixels: np.ndarray) -> Path:
    write_parquet(tmp_path / "cifar10" / "train.parquet", pixels, [3, 0, 9, 1, 1, 2])
    write_parquet(tmp_path / "cifar10" / "test.parquet", pixels[:2], [5, 6])
    return tmp_path


def test_reads_parquet_files(fake: Path, pixels: np.ndarray) -> None:
    bundle = cifar10.build(cifar10.Cifar10Options(root=str(fake), augment=False))
    images, labels = bundle.train.__getitems__(range(6))
    assert labels.tolist() == [3, 0, 9, 1, 1, 2]
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    expected = (torch.from_numpy(pixels) / 255 - mean) / std
    torch.testing.assert_close(images.movedim(1, 3), expected, rtol=1e-5, atol=1e-5)
    assert len(bundle.evaluation) == 2


def test_only_training_images_are_augmented(fake: Path) -> None:
    bundle = cifar10.build(cifar10.Cifar10Options(root=str(fake)))
    first, second = (bundle.train.__getitems__(range(6))[0] for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (bundle.evaluation.__getitems__(range(2))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        cifar10.build(cifar10.Cifar10Options(root=str(tmp_path), download=False))
    message = str(caught.value)
    assert message.startswith(f"cifar10: neither {tmp_path}/cifar10/train.parquet and test.parquet")
    assert f"nor {tmp_path}/cifar-10-batches-py, and data.download is false" in message
    assert "--data.root FOLDER" in message


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match=r"the download failed .*Network is unreachable"):
        cifar10.build(cifar10.Cifar10Options(root=str(tmp_path)))


def test_a_damaged_parquet_file_is_named(fake: Path) -> None:
    path = fake / "cifar10" / "train.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=f"{path}: damaged or not CIFAR-10"):
        cifar10.build(cifar10.Cifar10Options(root=str(fake)))


@pytest.mark.parametrize(
    "columns",
    [
        {"image": ["x"], "label": [1]},
        {"img": [1], "label": [1]},
        {"img": [{"bytes": b"not an image"}], "label": [1]},
        {"img": [{"bytes": encoded(np.zeros((8, 8, 3), np.uint8))}], "label": [1]},
        {"img": [{"bytes": None}], "label": [1]},
    ],
)
def test_other_tables_are_refused(fake: Path, columns: dict[str, list[object]]) -> None:
    path = fake / "cifar10" / "test.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=f"{path}: damaged or not CIFAR-10"):
        cifar10.build(cifar10.Cifar10Options(root=str(fake)))


def test_a_damaged_archive_is_never_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match="data_batch_1: missing or damaged; remove"):
        cifar10.build(cifar10.Cifar10Options(root=str(tmp_path), download=False))


def test_reads_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One training and one test file in the archive's format, with their own digests."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    contents = {
        "data_batch_1": {"data": pixels.reshape(3, -1), "labels": [4, 5, 6]},
        "test_batch": {"data": pixels[:1].reshape(1, -1), "labels": [7]},
        "batches.meta": {"label_names": list(cifar10.LABELS)},
    }
    digests = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        digests[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", digests["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setitem(CIFAR10.meta, "md5", digests["batches.meta"])
    bundle = cifar10.build(cifar10.Cifar10Options(root=str(tmp_path), download=False))
    assert torch.equal(bundle.train.images, torch.from_numpy(pixels))
    assert bundle.train.labels.tolist() == [4, 5, 6]
    assert bundle.evaluation.labels.tolist() == [7]


def test_the_real_files(data_root: Path) -> None:
    path = data_root / "cifar10" / "test.parquet"
    if not path.is_file():
        pytest.skip(f"no cifar10/test.parquet in {data_root} (SSM_DATA_ROOT)")
    images, labels = cifar10.read_parquet(path)
    assert images.shape == (10_000, 3, 32, 32)
    assert labels.bincount().tolist() == [1000] * 10
    normalised = cifar10.NORMALISATION(images)
    assert float(normalised.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(normalised.std()) == pytest.approx(1.0, abs=0.05)


def test_cifar100_reads_its_fine_labels(tmp_path: Path, pixels: np.ndarray) -> None:
    for name in cifar10.PARQUET_FILES:
        path = tmp_path / "cifar100" / name
        path.parent.mkdir(exist_ok=True)
        column = [{"bytes": encoded(image)} for image in pixels]
        fine, coarse = [99, 0, 5, 5, 40, 7], [1, 2, 3, 4, 5, 6]
        pq.write_table(pa.table({"img": column, "fine_label": fine, "coarse_label": coarse}), path)
    bundle = cifar100.build(
        cifar100.Cifar100Options(root=str(tmp_path), train_examples=3, eval_examples=6)
    )
    assert len(bundle.train) == 3
    assert bundle.evaluation.labels.tolist() == [99, 0, 5, 5, 40, 7]
    assert bundle.info.n_outputs == len(bundle.info.labels) == 100
    assert list(bundle.info.labels) == sorted(set(bundle.info.labels))


def test_cifar100_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"nor {tmp_path}/cifar-100-python, and data.download"):
        cifar100.build(cifar100.Cifar100Options(root=str(tmp_path), download=False))


def test_randaugment_changes_training_images_more(fake: Path) -> None:
    plain, strong = (
        cifar10.build(cifar10.Cifar10Options(root=str(fake), randaugment=magnitude))
        for magnitude in (None, 9.0)
    )
    batches = []
    for bundle in (plain, strong):
        torch.manual_seed(0)
        batches.append(bundle.train.__getitems__(range(6))[0])
    assert not torch.equal(*batches)
    assert torch.equal(plain.evaluation[0][0], strong.evaluation[0][0])
