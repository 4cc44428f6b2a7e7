from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssm_core.errors import ConfigError, DataError
from ssm_vision.data.segmentation_folder import SegmentationFolderOptions, build, split


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path)


def make(
    root: Path, count: int = 5, size: tuple[int, int] = (24, 20), masks: str = "label"
) -> Path:
    """Grey pictures whose bright pixels (above 128) are the foreground."""
    random = np.random.default_rng(0)
    (root / "image").mkdir(parents=True)
    (root / masks).mkdir()
    for i in range(count):
        pixels = random.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(root / "image" / f"{i + 8}.png")
        Image.fromarray(np.where(pixels > 128, 255, 0).astype(np.uint8)).save(
            root / masks / f"{i + 8}.png"
        )
    return root


def options(root: Path, **others: Any) -> SegmentationFolderOptions:
    return SegmentationFolderOptions(root=str(root), **({"size": 16} | others))


def assert_pairs(images: torch.Tensor, targets: torch.Tensor) -> None:
    """Wherever the picture is brighter than anywhere else, and only there, is foreground."""
    for image, truth in zip(images, targets, strict=True):
        known = truth >= 0
        bright, dark = image[0][known & (truth == 1)], image[0][known & (truth == 0)]
        assert float(bright.min()) > float(dark.max())


def test_pictures_with_their_masks(folder: Path) -> None:
    bundle = build(options(folder, crops=3, held_out=0.4))
    assert bundle.info.input_shape == (1, 16, 16)
    assert bundle.info.n_outputs == 1
    assert (len(bundle.train), len(bundle.evaluation)) == (9, 2)
    images, targets = bundle.train.__getitems__([0, 4, 8])
    assert (images.shape, targets.shape) == ((3, 1, 16, 16), (3, 16, 16))
    assert (images.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert_pairs(images, targets)
    images, targets = bundle.evaluation.__getitems__([0, 1])
    assert (images.shape, targets.shape) == ((2, 1, 24, 20), (2, 24, 20))
    assert_pairs(images, targets)
    assert images.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert images.std(dim=(1, 2, 3), correction=0).tolist() == pytest.approx([1, 1], abs=1e-4)


def test_training_examples_are_cut_mirrored_and_turned(folder: Path) -> None:
    turned = build(options(make(folder / "square", size=(16, 16)))).train
    seen = set()
    for _ in range(60):
        image, truth = turned[0]
        assert_pairs(image[None], truth[None])
        seen.add(tuple(image.flatten().tolist()))
    assert len(seen) == 8  # the symmetries of a square
    cut = build(options(folder, augment=False)).train
    assert len({float(cut[0][0][0, 0, 0]) for _ in range(30)}) > 5
    fixed = build(options(folder, fit="resize", augment=False)).train
    assert torch.equal(fixed[0][0], fixed[0][0])
    evaluation = build(options(folder)).evaluation
    assert torch.equal(evaluation[0][0], evaluation[0][0])


def test_oblong_pictures_keep_their_shape(tmp_path: Path) -> None:
    data = build(options(make(tmp_path, size=(12, 40)), held_out=0.2, augment=True))
    data.train.size = None  # type: ignore[attr-defined]
    for _ in range(8):
        image, truth = data.train[0]
        assert image.shape == (1, 12, 40)
        assert_pairs(image[None], truth[None])


def test_small_and_unequal_pictures_are_filled_up(tmp_path: Path) -> None:
    make(tmp_path, 2, (10, 30))
    Image.fromarray(np.full((21, 9), 200, np.uint8)).save(tmp_path / "image" / "0.png")
    Image.fromarray(np.full((21, 9), 255, np.uint8)).save(tmp_path / "label" / "0.png")
    data = build(options(tmp_path, split="last", held_out=0.6))
    image, truth = data.train[0]
    assert image.shape == (1, 16, 16)
    assert (truth >= 0).sum() == 16 * 9  # not counted where there is no picture
    data = build(options(tmp_path, split="last", held_out=0.6))
    images, targets = data.evaluation.__getitems__([0, 1])
    assert images.shape == (2, 1, 10, 30)
    make(tmp_path / "more", 1, (10, 30))
    (tmp_path / "image" / "0.png").rename(tmp_path / "image" / "99.png")
    (tmp_path / "label" / "0.png").rename(tmp_path / "label" / "99.png")
    data = build(options(tmp_path, split="last", held_out=0.6))
    images, targets = data.evaluation.__getitems__([0, 1])
    assert images.shape == (2, 1, 21, 30)
    assert (targets[0] >= 0).sum() == 300
    assert torch.equal(images[0, 0, 10], images[0, 0, 8])  # mirrored
    assert_pairs(images[:1], targets[:1])


def test_the_split_is_by_file_and_always_the_same(folder: Path) -> None:
    assert split(5, 0.4, "last") == ([0, 1, 2], [3, 4])
    train, held_out = split(30, 0.2, "random")
    assert (train, held_out) == split(30, 0.2, "random")
    assert sorted(train + held_out) == list(range(30))
    assert held_out != list(range(24, 30))
    assert split(2, 0.01, "last") == ([0], [1])
    assert split(2, 0.99, "last") == ([0], [1])
    last = build(options(folder, split="last")).evaluation
    picture = np.asarray(Image.open(folder / "image" / "12.png"))  # after 8 and 9, not before
    assert torch.equal(last.pictures[0][0], torch.tensor(picture))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("image", "mask"), [("images", "masks"), ("image", "mask")])
def test_names_of_folders_and_suffixes(tmp_path: Path, image: str, mask: str) -> None:
    make(tmp_path / "set", masks=mask)
    (tmp_path / "set" / "image").rename(tmp_path / "set" / image)
    for path in (tmp_path / "set" / mask).iterdir():
        path.rename(path.with_name(f"{path.stem}_seg.png"))
    bundle = build(options(tmp_path, subfolder="set", mask_suffix="_seg"))
    assert len(bundle.train) == 4
    direct = build(options(tmp_path / "set", subfolder="set", mask_suffix="_seg"))
    assert len(direct.train) == 4


def test_inverted_masks(folder: Path) -> None:
    _, truth = build(options(folder)).evaluation[0]
    _, other = build(options(folder, invert=True)).evaluation[0]
    assert torch.equal(truth, 1 - other)


def test_classes_and_unknown_pixels(folder: Path) -> None:
    random = np.random.default_rng(1)
    for path in (folder / "label").iterdir():
        values = random.choice([0, 1, 2, 255], (24, 20)).astype(np.uint8)
        Image.fromarray(values).save(path)
    bundle = build(options(folder, classes=3, labels=("a", "b", "c")))
    _, truth = bundle.evaluation[0]
    assert set(truth.unique().tolist()) == {-1, 0, 1, 2}
    assert (bundle.info.n_outputs, bundle.info.labels) == (3, ("a", "b", "c"))
    palette = Image.fromarray(values).convert("P")
    palette.putdata(values.flatten().tolist())
    palette.save(path)
    assert len(build(options(folder, classes=3)).train) == 4
    with pytest.raises(DataError, match=r"class 2, expected numbers from 0 to 1 .*data.classes"):
        build(options(folder, classes=2))


def test_masks_of_zeros_and_ones(folder: Path) -> None:
    before = build(options(folder)).evaluation[0][1]
    for path in (folder / "label").iterdir():
        values = np.asarray(Image.open(path)) // 255
        Image.fromarray(values).save(path)
    assert torch.equal(build(options(folder)).evaluation[0][1], before)
    Image.fromarray(np.full((24, 20), 3, np.uint8)).save(path)
    with pytest.raises(DataError, match=rf"{path}: values up to 3, .* --data.classes 4"):
        build(options(folder))


def test_colours(folder: Path) -> None:
    grey = build(options(folder)).evaluation[0][0]
    for path in (folder / "image").iterdir():
        Image.open(path).convert("RGB").save(path)
    bundle = build(options(folder))
    assert bundle.info.input_shape == (3, 16, 16)
    torch.testing.assert_close(bundle.evaluation[0][0], grey.expand(3, -1, -1))
    assert build(options(folder, channels=1)).info.input_shape == (1, 16, 16)


def test_resized_masks_keep_their_classes(folder: Path) -> None:
    bundle = build(options(folder, fit="resize"))
    images, targets = bundle.evaluation.__getitems__([0])
    assert images.shape == (1, 1, 16, 16)
    assert set(targets.unique().tolist()) == {0, 1}


def spoil(root: Path, how: str) -> None:
    image, mask = root / "image" / "9.png", root / "label" / "9.png"
    if how == "no folder":
        (root / "label").rename(root / "labelled")
    elif how == "empty":
        for path in (root / "image").iterdir():
            path.unlink()
    elif how == "one":
        for path in (root / "image").iterdir():
            if path != image:
                path.unlink()
    elif how == "no mask":
        mask.unlink()
    elif how == "size":
        Image.open(mask).resize((7, 5)).save(mask)
    elif how == "damaged":
        image.write_bytes(image.read_bytes()[:60])
    elif how == "damaged mask":
        mask.write_bytes(b"no image")
    elif how == "colour mask":
        Image.open(mask).convert("RGB").save(mask)
    elif how == "16 bits":
        Image.fromarray(np.full((24, 20), 9000, np.uint16)).save(image)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no folder", "no folders image and label .* expected FOLDER/image/NAME.png"),
        ("empty", "no pictures in .*image"),
        ("one", "one picture, .*9.png, cannot be split"),
        ("no mask", r"image/9.png: no mask .*label/9\.\*: remove the picture"),
        ("size", r"label/9.png: 5 x 7 pixels, but its picture .*image/9.png has 24 x 20"),
        ("damaged", "image/9.png: damaged or not an image"),
        ("damaged mask", "label/9.png: damaged or not an image"),
        ("colour mask", "label/9.png: a mask in RGB colours, expected one number per pixel"),
        ("16 bits", "image/9.png: I;16 pixels of more than 8 bits"),
    ],
)
def test_spoilt_folders_end_in_one_line(folder: Path, how: str, message: str) -> None:
    spoil(folder, how)
    with pytest.raises(DataError, match=message) as caught:
        build(options(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 0}, "data.size is 0, expected 1 or more"),
        ({"classes": 256}, "data.classes is 256, expected at most 255"),
        ({"classes": 3, "invert": True}, "data.invert is for binary masks, data.classes is 3"),
        ({"channels": 2}, "data.channels is 2, expected 1, 3 or null"),
        ({"labels": ("a", "b")}, "data.labels has 2 names, expected one per class, 1"),
        ({"held_out": 1.0}, "data.held_out is 1.0, expected a number between 0 and 1"),
        ({"fit": "pad"}, "data.fit is 'pad', expected crop or resize"),
        ({"split": "first"}, "data.split is 'first', expected random or last"),
    ],
)
def test_bad_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentationFolderOptions(**given)


def test_membranes(data_root: Path) -> None:
    if not (data_root / "em_membrane").is_dir():
        pytest.skip(f"no folder em_membrane in {data_root}")
    bundle = build(options(data_root, subfolder="em_membrane", split="last", size=64))
    assert (len(bundle.train), len(bundle.evaluation)) == (24, 6)
    image, truth = bundle.evaluation[0]
    assert image.shape == (1, 512, 512)
    assert 0.7 < float(truth.float().mean()) < 0.85  # white are the cells, not the membranes
    assert float(image[0][truth == 1].mean()) > float(image[0][truth == 0].mean())
