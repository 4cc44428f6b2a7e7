from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssm_core.errors import ConfigError, DataError
from ssm_vision.data import imagenet
from ssm_vision.data.imagenet import ImageNetOptions
from ssm_vision.data.shards import Shards


def picture(colour: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.full((20, 30, 3), colour, np.uint8)).save(file, format="PNG")
    return file.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return path


def examples(start: int, count: int, classes: int = 3) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for i in range(start, start + count):
        members[f"n{i:04d}.png"] = picture(10 * i)
        members[f"n{i:04d}.json"] = b"{}"
        members[f"n{i:04d}.cls"] = b"%d\n" % (i % classes)
    return members


def grey(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for shard in range(2):
        write_shard(tmp_path / "train" / f"{shard:06d}.tar", examples(4 * shard, 4))
    write_shard(tmp_path / "val" / "000000.tar", examples(8, 3))
    return tmp_path


def test_examples_come_in_order_from_any_place(root: Path) -> None:
    data = Shards(sorted((root / "train").glob("*.tar")), grey)
    assert [data[i] for i in (7, 0, 3)] == [(70, 1), (0, 0), (30, 0)]
    assert len(data) == 8


def test_folders_within_the_archive_are_part_of_the_key(tmp_path: Path) -> None:
    members = {"a/x.png": picture(1), "a/x.cls": b"4", "b/x.cls": b"5", "b/x.png": picture(2)}
    data = Shards([write_shard(tmp_path / "s.tar", members)], grey)
    assert sorted(data[i] for i in range(2)) == [(1, 4), (2, 5)]


@pytest.mark.parametrize("flat", [False, True])
def test_imagenet_finds_shards(root: Path, flat: bool) -> None:
    if flat:
        for path in list(root.glob("*/*.tar")):
            path.rename(root / f"imagenet-{path.parent.name}-{path.name}")
    bundle = imagenet.build(ImageNetOptions(root=str(root), size=16, classes=3, train_examples=5))
    assert (len(bundle.train), len(bundle.evaluation)) == (5, 3)
    assert bundle.info.n_outputs == 3
    image, label = bundle.evaluation[1]
    assert image.shape == (3, 16, 16)
    assert label == 0
    assert float(image[0, 0, 0]) == pytest.approx((90 / 255 - 0.485) / 0.229, abs=1e-5)


def test_imagenet_finds_folders(image_folder: Path) -> None:
    bundle = imagenet.build(ImageNetOptions(root=str(image_folder), size=16))
    assert bundle.info.labels == ("blue", "green", "red")
    assert torch.equal(bundle.evaluation[0][0], bundle.evaluation[0][0])


def test_imagenet_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"imagenet: no folder {tmp_path}/train: expected"):
        imagenet.build(ImageNetOptions(root=str(tmp_path)))


def test_imagenet_with_one_part_in_shards(root: Path) -> None:
    (root / "val" / "000000.tar").unlink()
    with pytest.raises(DataError, match=f"imagenet: no shards {root}/val/\\*.tar or"):
        imagenet.build(ImageNetOptions(root=str(root)))


def test_labels_beyond_the_classes(root: Path) -> None:
    with pytest.raises(DataError, match=r"a label is 2, expected less than data.classes = 2"):
        imagenet.build(ImageNetOptions(root=str(root), classes=2))
    with pytest.raises(ConfigError, match=r"data\.classes is 0, expected 1 or more"):
        ImageNetOptions(classes=0)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": b"x"}, "a has an image and no a.cls with its label"),
        ({"a.png": b"x", "a.cls": b"cat"}, "a.cls holds 'cat', expected the number of a class"),
    ],
)
def test_bad_members_are_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    path = write_shard(tmp_path / "s.tar", members)
    with pytest.raises(DataError, match=message) as caught:
        Shards([path], grey)
    assert str(caught.value).startswith(f"{path}: ")


def test_damaged_files_are_named(root: Path) -> None:
    path = root / "train" / "000000.tar"
    data = Shards([path], grey)
    content = bytearray(path.read_bytes())
    start = data.places[0].offset
    content[start : start + data.places[0].size] = bytes(data.places[0].size)
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: the image at byte {start} is damaged"):
        data[0]
    path.write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match=f"{path}: damaged or not an uncompressed tar file"):
        Shards([path], grey)
