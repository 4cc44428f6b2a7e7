"""Official MambaVision state dicts: the golden, published shapes, arguments, errors."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from ssm_core import DataInfo
from ssm_core.errors import CheckpointError, ConfigError, UnknownNameError
from ssm_vision.models.mambavision import PRESETS, MambaVision
from ssm_vision.models.mambavision_config import MambaVisionConfig
from ssm_vision.official.families import from_official

SMALL = MambaVisionConfig(
    dim=4, in_dim=3, depths=(1, 2, 3, 2), num_heads=(2, 4), windows=(3, 2), drop_path=0.1
)
INFO = DataInfo(input_shape=(3, 64, 64), n_outputs=5)
UNTOLD: dict[str, Any] = {"num_heads": [1, 1, 2, 4], "window_size": [8, 8, 3, 2]}


@pytest.fixture(scope="module")
def goldens() -> Path:
    beside = Path(__file__).resolve().parents[4].parent / "shared" / "goldens"
    folder = Path(os.environ.get("SSM_GOLDENS", beside))
    if not folder.is_dir():
        pytest.skip(f"no folder of goldens {folder} (SSM_GOLDENS)")
    return folder


def small(**options: Any) -> MambaVision:
    torch.manual_seed(3)
    model = MambaVision(replace(SMALL, **options), INFO)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def same(a: MambaVision, b: MambaVision) -> bool:
    images = torch.randn(2, 3, 45, 70)
    with torch.no_grad():
        return torch.equal(a(images), b.eval()(images))


def test_golden(goldens: Path) -> None:
    with safe_open(goldens / "mambavision_plain.safetensors", "pt") as file:
        kw = json.loads(file.metadata()["kw"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    sd = {k.removeprefix("sd."): v for k, v in tensors.items() if k.startswith("sd.")}
    for model in (
        from_official("mambavision", sd, **kw),
        from_official("mambavision", tensors, prefix="sd.", **kw),
    ):
        with torch.no_grad():
            y = model.eval()(tensors["x"])
        expected = tensors["y"]
        assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_keys_and_shapes_of_the_tiny_model(goldens: Path) -> None:
    published = json.loads((goldens / "published_shapes.json").read_text())["mamba_vision_T"]
    preset = PRESETS["mambavision_tiny"]
    with torch.device("meta"):
        model = preset.build(preset.config, DataInfo((3, 224, 224), 1000))
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == published


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer_scale": 1e-5},
        {"layer_scale_conv": 1e-5, "qkv_bias": False},
        {"mlp_ratio": 2.75, "depths": (2, 1, 1, 1)},
        {"mlp_ratio": 1.3, "dim": 6},
    ],
)
def test_what_tensors_tell_is_read_from_them(options: dict[str, Any]) -> None:
    model = small(**options)
    loaded = from_official("mambavision", model.state_dict(), **UNTOLD, drop_path_rate=0.1)
    assert isinstance(loaded, MambaVision)
    assert same(model, loaded)
    expected = replace(model.config, mlp_ratio=loaded.config.mlp_ratio)
    assert loaded.config == expected


def test_original_arguments() -> None:
    model = small(layer_scale=0.1)
    loaded = from_official(
        "mambavision",
        model.state_dict(),
        dim=4,
        in_dim=3,
        depths=[1, 2, 3, 2],
        window_size=[8, 8, 3, 2],
        mlp_ratio=4,
        num_heads=[1, 1, 2, 4],
        drop_path_rate=0.3,
        in_chans=3,
        num_classes=5,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.2,
        attn_drop_rate=0.1,
        layer_scale=0.1,
        layer_scale_conv=None,
        resolution=64,
        pretrained=True,
    )
    assert isinstance(loaded, MambaVision)
    assert same(model, loaded)
    config = replace(model.config, drop_path=0.3, dropout=0.2, attention_dropout=0.1)
    assert loaded.config == config
    assert loaded.image_size == (64, 64)


@pytest.mark.parametrize(
    ("dim", "heads", "windows"), [(80, (8, 16), (14, 7)), (196, (16, 32), (14, 7))]
)
def test_untold_arguments_are_the_published_ones(
    dim: int, heads: tuple[int, int], windows: tuple[int, int]
) -> None:
    config = MambaVisionConfig(
        dim=dim, in_dim=2, depths=(1, 1, 1, 1), num_heads=(1, 1), mlp_ratio=0.01
    )
    with torch.device("meta"):
        empty = MambaVision(config, INFO)
    sd = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in empty.state_dict().items()}
    loaded = from_official("mambavision", sd)
    assert isinstance(loaded, MambaVision)
    assert (loaded.config.num_heads, loaded.config.windows) == (heads, windows)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd: {"state_dict": sd},
        lambda sd: {"model": sd},
        lambda sd: {f"module.{k}": v for k, v in sd.items()},
        lambda sd: {"state_dict": {f"module.{k}": v for k, v in sd.items()}},
        lambda sd: {f"encoder.{k}": v for k, v in sd.items()} | {"zz.weight": torch.zeros(1)},
        lambda sd: {k: v for k, v in sd.items() if "num_batches" not in k},
        lambda sd: {k: v.numpy() for k, v in sd.items()},
    ],
    ids=["state_dict", "model", "module", "both", "encoder", "no-counts", "numpy"],
)
def test_containers(wrap: Any) -> None:
    model = small()
    sd: dict[str, Tensor] = model.state_dict()
    assert same(model, from_official("mambavision", wrap(sd), **UNTOLD))  # type: ignore[arg-type]


def test_without_a_head() -> None:
    model = small()
    sd = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    loaded = from_official("mambavision", sd, **UNTOLD)
    assert loaded(torch.randn(2, 3, 40, 40)).shape == (2, 32)


def test_every_tensor_that_does_not_fit_is_named() -> None:
    sd = small().state_dict()
    del sd["norm.weight"], sd["levels.2.blocks.0.mixer.A_log"]
    sd["levels.2.blocks.0.mixer.conv1d_x.bias"] = torch.zeros(8)
    sd["levels.0.downsample.reduction.0.weight"] = torch.zeros(8, 4, 1, 1)
    with pytest.raises(CheckpointError) as caught:
        from_official("mambavision", sd, **UNTOLD)
    message = str(caught.value)
    assert "missing levels.2.blocks.0.mixer.A_log, norm.weight" in message
    assert "unexpected levels.2.blocks.0.mixer.conv1d_x.bias" in message
    assert "reduction.0.weight has shape (8, 4, 1, 1), expected (8, 4, 3, 3)" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"dim": 8}, ConfigError, r"dim is 8, but patch_embed.conv_down.3.weight .* makes it 4"),
        ({"in_chans": 1}, ConfigError, "in_chans is 1"),
        ({"num_classes": 7}, ConfigError, "num_classes is 7, but head.weight"),
        ({"depths": [1, 2, 3, 3]}, ConfigError, "depths"),
        ({"depths": [1, 2]}, ConfigError, r"depths is \[1, 2\], expected 4 integers"),
        ({"mlp_ratio": 3}, ConfigError, "mlp_ratio is 3"),
        ({"layer_scale": 1e-5}, ConfigError, "without levels.3.blocks.0.gamma_1"),
        ({"layer_scale_conv": 1}, ConfigError, "without levels.0.blocks.0.gamma"),
        ({"qkv_bias": False}, ConfigError, "qkv_bias is False"),
        ({"qk_scale": 0.5}, ConfigError, "qk_scale is 0.5, expected None"),
        ({"num_heads": [2, 4, 8]}, ConfigError, "num_heads"),
        ({"num_heads": None}, ConfigError, "num_heads"),
        ({"num_head": 4}, UnknownNameError, "num_heads"),
    ],
)
def test_arguments_that_do_not_fit(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        from_official("mambavision", small().state_dict(), **(UNTOLD | given))
    assert "\n" not in str(caught.value)


def test_arguments_that_must_be_said() -> None:
    with pytest.raises(ConfigError, match="num_heads and window_size cannot be told"):
        from_official("mambavision", small().state_dict())
    with pytest.raises(CheckpointError, match=r"missing patch_embed.conv_down.0.weight"):
        from_official("mambavision", {"head.weight": torch.zeros(5, 8)})
