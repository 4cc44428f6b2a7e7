"""Models of timm to compare with: sizes as published, any channels, images and classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ssm_core import DataInfo
from ssm_core.cli import main
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_vision import create_model, list_models
from ssm_vision.models import baselines
from ssm_vision.models.baselines import IMAGE_SIZES, BaselineConfig

#: of the papers and of torchvision's and timm's model lists, at 1000 classes
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "regnety_040": 20_646_656,
    "vit_base_patch16_384": 86_859_496,
    "vit_large_patch16_384": 304_715_752,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
}


def test_their_names() -> None:
    assert list_models(family="baselines") == sorted(PARAMETERS)
    assert set(PARAMETERS) == set(IMAGE_SIZES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_as_published(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
        images = torch.empty(1, 3, IMAGE_SIZES[name], IMAGE_SIZES[name])
        model.eval()
        assert model(images).shape == (1, 1000)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet18", "deit_tiny_patch16_224"])
def test_other_data(name: str, tmp_path: Path) -> None:
    model = create_model(name, num_classes=3, in_chans=1, img_size=(32, 48), drop_path=0.1)
    images = torch.randn(2, 1, 32, 48)
    model.eval()
    y = model(images)
    assert y.shape == (2, 3)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pth")
    again = create_model(
        name, num_classes=3, in_chans=1, img_size=(32, 48), checkpoint=tmp_path / "w.pth"
    )
    torch.testing.assert_close(again(images), y)
    bare = create_model(name, num_classes=0, img_size=32).eval()
    assert bare(torch.zeros(1, 3, 32, 32)).shape == (1, bare.num_features)


def test_branches_are_dropped_in_training() -> None:
    model = create_model("deit_tiny_patch16_224", img_size=32, drop_path=0.9)
    rates = [p.drop_prob for p in model.modules() if type(p).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.9)
    assert not [
        part
        for part in create_model("deit_tiny_patch16_224", img_size=32).modules()
        if type(part).__name__ == "DropPath"
    ]


def test_what_cannot_be_built() -> None:
    with pytest.raises(UnknownNameError, match="unknown architecture 'resnet19': did you mean"):
        BaselineConfig("resnet19")
    with pytest.raises(ConfigError, match="drop_path is 1"):
        BaselineConfig(drop_path=1.0)
    with pytest.raises(ConfigError, match="resnet18 needs images"):
        baselines.build(BaselineConfig(), DataInfo((64,), 5))
    with pytest.raises(ConfigError, match="images have 8 x 32 pixels, expected at least 16 x 16"):
        create_model("deit_tiny_patch16_224", img_size=(8, 32))


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "digits-bimamba", "--model", "baseline", "--model.architecture", "resnet18"]
    assert main([*words, "--trainer.max_steps", "1", "--out", str(tmp_path)]) == 0
    weights = tmp_path / "digits-bimamba-001" / "model.safetensors"
    model = create_model("resnet18", num_classes=10, in_chans=1, img_size=8, checkpoint=weights)
    assert isinstance(model, nn.Module)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
