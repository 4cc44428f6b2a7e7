"""Our models through timm: construction, feature maps, preprocessing, and what its training script
calls on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_model import PRESETS, Toy

from ssm_core.errors import CheckpointError, UnknownNameError
from ssm_vision import zoo
from ssm_vision.models.registry import FAMILIES

timm = pytest.importorskip("timm", reason="timm is not installed")
from timm.data import resolve_data_config, resolve_model_data_config  # noqa: E402
from timm.models import load_checkpoint  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.utils import ModelEmaV3  # noqa: E402

from ssm_vision import timm_models  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Any:
    """A family of models that take no time, known to timm as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "FAMILIES", {**FAMILIES, "toy": PRESETS})
        zoo._family_of.cache_clear()
        for name, preset in PRESETS.items():
            timm_models.register(name, preset)
        yield
    zoo._family_of.cache_clear()


def test_every_model_is_known_by_the_same_name() -> None:
    names = [name for presets in FAMILIES.values() for name in presets]
    assert set(names) <= set(timm.list_models())
    assert not set(names) & set(timm.list_models(pretrained=True))
    assert timm.list_models("toy_*") == ["toy_small", "toy_wide"]
    assert timm.list_models(module="timm_models")


def test_arguments_of_timm() -> None:
    model = timm.create_model(
        "toy_small",
        pretrained=False,
        num_classes=3,
        in_chans=1,
        img_size=24,
        drop_rate=0.0,
        drop_path_rate=0.1,
        drop_block_rate=None,
        global_pool=None,
        bn_momentum=None,
        scriptable=False,
        width=2,
    )
    assert isinstance(model, Toy)
    assert (model.config.drop_path, model.config.width) == (0.1, 2)
    assert model(torch.zeros(2, 1, 24, 24)).shape == (2, 3)
    assert model.training


def test_other_arguments_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="option of toy_small 'widht'"):
        timm.create_model("toy_small", widht=3)
    for option in ({"drop_rate": 0.5}, {"global_pool": "max"}, {"drop_block_rate": 0.1}):
        with pytest.raises(UnknownNameError, match=r"option of toy_small 'drop_|'global_pool"):
            timm.create_model("toy_small", **option)


def test_features_only() -> None:
    net = timm.create_model("toy_small", features_only=True, out_indices=(1,))
    assert net.feature_info.channels() == [16]
    assert net.feature_info.reduction() == [8]
    (last,) = net(torch.zeros(2, 3, 16, 16))
    assert last.shape == (2, 16, 2, 2)
    net = timm.create_model("toy_small", features_only=True, num_classes=7)
    assert net.feature_info.channels() == [8, 16]
    assert [tuple(m.shape) for m in net(torch.zeros(2, 3, 16, 16))] == [(2, 8, 4, 4), (2, 16, 2, 2)]
    assert not any("head" in name for name, _ in net.named_parameters())
    assert net.default_cfg["input_size"] == (3, 16, 16)


def test_preprocessing_as_published() -> None:
    config = resolve_model_data_config(timm.create_model("toy_wide"))
    assert (config["input_size"], config["crop_pct"]) == ((3, 16, 16), 0.9)
    assert config["interpolation"] == "bicubic"
    assert config["mean"] == (0.485, 0.456, 0.406)
    assert config["std"] == (0.229, 0.224, 0.225)
    other = timm.create_model("toy_wide", img_size=(8, 24), in_chans=1)
    assert resolve_model_data_config(other)["input_size"] == (1, 8, 24)
    assert resolve_data_config({"img_size": 32}, model=other)["input_size"] == (3, 32, 32)


def test_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = timm.create_model("toy_small")
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "w.pth")
    path = str(tmp_path / "w.pth")
    again = timm.create_model("toy_small", checkpoint_path=path)
    torch.testing.assert_close(again.state_dict(), trained.state_dict())
    load_checkpoint(timm.create_model("toy_small"), path)
    overlay = {"file": path}
    larger = timm.create_model(
        "toy_small", pretrained=True, pretrained_cfg_overlay=overlay, img_size=32, num_classes=3
    )
    torch.testing.assert_close(larger.patch_embed.weight, trained.patch_embed.weight)
    assert larger.pos_embed.shape[2:] == (16, 16)
    assert any("head does not fit" in line for line in caplog.messages)
    with pytest.raises(CheckpointError, match=r"patch_embed\.weight has shape"):
        timm.create_model("toy_small", pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1)
    with pytest.raises(CheckpointError, match="toy_small: no weights come with the package; use"):
        timm.create_model("toy_small", pretrained=True)


def test_what_the_training_script_does() -> None:
    """Everything that timm's train.py calls on a model, in its order."""
    model = timm.create_model("toy_small", num_classes=3, drop_path_rate=None)
    model.get_classifier().weight.data.mul_(0.5)
    model.set_grad_checkpointing(enable=True)
    model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.1, layer_decay=0.5)
    scales = {round(group["lr_scale"], 6) for group in optimizer.param_groups}
    assert scales == {1.0, 0.5, 0.25, 0.125, 0.0625}
    rates = {
        name: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is p for p in group["params"])
    }
    assert rates["head.weight"] == (1.0, 0.1)
    assert rates["pos_embed"] == (0.0625, 0.0)
    assert rates["norm.weight"] == (0.5, 0.0)
    ema = ModelEmaV3(model, decay=0.5)
    before = model.head.weight.detach().clone()
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    assert not torch.equal(model.head.weight, before)
    ema.update(model, step=5)
    assert not torch.equal(ema.module.head.weight, model.head.weight)
    plain = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.1)
    decayed = {id(p) for g in plain.param_groups if g["weight_decay"] for p in g["params"]}
    assert id(model.pos_embed) not in decayed
    assert id(model.patch_embed.weight) in decayed
    model.reset_classifier(num_classes=6)
    assert model(images).shape == (4, 6)
