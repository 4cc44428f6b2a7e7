from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ssm_core.errors import ConfigError, DataError
from ssm_vision.data import image_folder as module
from ssm_vision.data.image_folder import ImageFolderOptions, build


def test_finds_classes_and_images(image_folder: Path) -> None:
    bundle = build(ImageFolderOptions(root=str(image_folder), size=16))
    assert bundle.info.labels == ("blue", "green", "red")
    assert bundle.info.input_shape == (3, 16, 16)
    assert (len(bundle.train), len(bundle.evaluation)) == (12, 6)
    for part in (bundle.train, bundle.evaluation):
        for image, label in (part[i] for i in range(len(part))):
            assert image.shape == (3, 16, 16)
            assert image.dtype == torch.float32
            shown = image * torch.tensor(module.STD).view(3, 1, 1) + torch.tensor(module.MEAN).view(
                3, 1, 1
            )
            assert int(shown.mean(dim=(1, 2)).argmax()) == 2 - label  # blue, green, red


def test_only_training_images_are_augmented(image_folder: Path) -> None:
    bundle = build(ImageFolderOptions(root=str(image_folder), size=16))
    assert not torch.equal(bundle.train[0][0], bundle.train[0][0])
    assert torch.equal(bundle.evaluation[0][0], bundle.evaluation[0][0])
    plain = build(ImageFolderOptions(root=str(image_folder), size=16, augment=False))
    assert torch.equal(plain.train[0][0], plain.train[0][0])


def test_test_folder_serves_as_val(image_folder: Path) -> None:
    (image_folder / "val").rename(image_folder / "test")
    assert len(build(ImageFolderOptions(root=str(image_folder))).evaluation) == 6


@pytest.mark.parametrize("absent", ["train", "val"])
def test_missing_folders(image_folder: Path, absent: str) -> None:
    shutil.rmtree(image_folder / absent)
    with pytest.raises(DataError) as caught:
        build(ImageFolderOptions(root=str(image_folder)))
    message = str(caught.value)
    assert message.startswith(f"image-folder: no folder {image_folder}/{absent}")
    assert f"expected {image_folder}/train/CLASS/IMAGE.png" in message
    assert "--data.root FOLDER" in message


def test_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match=f"{tmp_path}/train: .*Expected .*/CLASS/IMAGE.png"):
        build(ImageFolderOptions(root=str(tmp_path)))


def test_classes_differ(image_folder: Path) -> None:
    (image_folder / "val" / "red").rename(image_folder / "val" / "rot")
    with pytest.raises(
        DataError, match="must have the same classes; only one of them has red, rot"
    ):
        build(ImageFolderOptions(root=str(image_folder)))


def test_a_damaged_image_is_named(image_folder: Path) -> None:
    path = image_folder / "val" / "blue" / "0.png"
    path.write_bytes(path.read_bytes()[:100])
    bundle = build(ImageFolderOptions(root=str(image_folder)))
    with pytest.raises(DataError, match=f"{path}: damaged or not an image"):
        bundle.evaluation[0]


def test_bad_size() -> None:
    with pytest.raises(ConfigError, match=r"data\.size is 0, expected 1 or more"):
        ImageFolderOptions(size=0)
