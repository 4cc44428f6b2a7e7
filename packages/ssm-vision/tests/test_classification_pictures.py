from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.train.restore import load_run
from ssm_vision import classification_pictures
from ssm_vision.classification_pictures import draw_classification, predict
from ssm_vision.scene import Scene


@pytest.fixture
def scene(run: Path, tmp_path: Path) -> Scene:
    restored = load_run(run)
    data = restored.config.specs["data"].build(restored.config.typed["data"])
    return Scene(restored, data, "mine", tmp_path)


def test_predictions_are_the_models(scene: Scene) -> None:
    found = predict(scene)
    evaluation = scene.data.evaluation
    images, truth = evaluation.__getitems__(range(len(evaluation)))  # type: ignore[attr-defined]
    assert torch.equal(found.labels, truth)
    with torch.no_grad():
        assert torch.equal(found.classes, scene.model(images).argmax(1))
    assert found.whole


@pytest.mark.parametrize("limit", [("MOST_IMAGES", 45), ("MOST_PIXELS", 45 * 64 + 63)])
def test_of_many_images_some_all_over_the_data(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, limit: tuple[str, int]
) -> None:
    every = predict(scene)
    monkeypatch.setattr(classification_pictures, *limit)
    some = predict(scene)
    assert not some.whole
    assert torch.equal(some.labels, every.labels[::10])
    assert torch.equal(some.classes, every.classes[::10])
    (picture,) = draw_classification(scene)
    assert "of 45 images" in picture.text


def test_the_picture_and_its_words(scene: Scene) -> None:
    (picture,) = draw_classification(scene)
    found = predict(scene)
    right = int((found.labels == found.classes).sum())
    assert picture.text.startswith(f"{right} of 450 images are classified correctly")
    assert picture.path.name == "confusion-mine.png"
    assert picture.path.read_bytes().startswith(b"\x89PNG")


def test_data_that_are_no_images_have_no_picture(scene: Scene) -> None:
    restored = dataclasses.replace(scene.restored, info=DataInfo((7,), 3))
    assert draw_classification(dataclasses.replace(scene, restored=restored)) == []
