"""VM-UNet in official names: the golden, published shapes, arguments, errors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssm_core import DataInfo
from ssm_core.errors import CheckpointError, ConfigError, SsmError, UnknownNameError
from ssm_vision.models.vmunet import VMUNet
from ssm_vision.models.vmunet_config import VMUNetConfig
from ssm_vision.official.families import from_official

REPOSITORY = Path(__file__).resolve().parents[4]
GOLDENS = Path(os.environ.get("SSM_GOLDENS", REPOSITORY.parent / "shared" / "goldens"))
CONFIG = VMUNetConfig(dims=(8, 16), depths=(1, 2), depths_decoder=(2, 1), d_state=4)


def tensors(wrapper: str = "", config: VMUNetConfig = CONFIG) -> dict[str, Tensor]:
    model = VMUNet(config, DataInfo((3, 32, 32), 2))
    return {wrapper + name: torch.randn_like(value) for name, value in model.state_dict().items()}


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    path = GOLDENS / name
    if not path.is_file():
        pytest.skip(f"no {path} (SSM_GOLDENS)")
    with safe_open(path, "pt") as file:
        content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return content, json.loads(file.metadata()["kw"])


@pytest.mark.parametrize("wrapper", ["", "vmunet."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden(wrapper: str, dtype: torch.dtype) -> None:
    content, arguments = golden("vmunet_c1.safetensors")
    weights = {wrapper + k[3:]: v for k, v in content.items() if k.startswith("sd.")}
    model = from_official("vmunet", weights, **arguments).eval().to(dtype)
    with torch.no_grad():
        y = model(content["x"].to(dtype))
    error = float((y - content["y"]).abs().max() / content["y"].abs().max())
    assert error < 5e-5, error


def test_names_and_shapes_are_the_published_ones() -> None:
    path = GOLDENS / "published_shapes.json"
    if not path.is_file():
        pytest.skip(f"no {path} (SSM_GOLDENS)")
    published = json.loads(path.read_text(encoding="utf-8"))["vmunet"]
    with torch.device("meta"):
        model = VMUNet(None, DataInfo((3, 256, 256), 1))
    own = {f"vmunet.{name}": list(value.shape) for name, value in model.state_dict().items()}
    assert own == published


@pytest.mark.parametrize("wrapper", ["", "vmunet."])
def test_sizes_are_read_from_the_tensors(wrapper: str) -> None:
    given = tensors(wrapper)
    model = from_official("vmunet", given)
    assert isinstance(model, VMUNet)
    drop_path = 0.2 if wrapper else 0.1  # defaults of two classes
    assert (model.config.dims, model.config.depths) == ((8, 16), (1, 2))
    assert (model.config.depths_decoder, model.config.d_state) == ((2, 1), 4)
    assert model.config.drop_path == drop_path
    assert (model.in_chans, model.num_classes) == (3, 2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, given[wrapper + name])


def test_without_a_norm_of_patches() -> None:
    config = VMUNetConfig(dims=(8,), depths=(1,), depths_decoder=(1,), patch_norm=False)
    model = from_official("vmunet", tensors(config=config), patch_norm=False, drop_path_rate=0.3)
    assert isinstance(model, VMUNet)
    assert model.patch_embed.norm is None
    assert model.config.drop_path == 0.3


def test_arguments_of_the_original_constructors() -> None:
    given = tensors()
    model = from_official("vmunet", given, input_channels=3, num_classes=2, load_ckpt_path=None)
    assert model.num_classes == 2
    words = {"dims": 8, "dims_decoder": [16, 8], "depths": [1, 2], "depths_decoder": (2, 1)}
    from_official("vmunet", given, **words, norm_layer="LN", use_checkpoint=True, drop_rate=0.0)
    wide = VMUNetConfig(dims=(24, 48), depths=(1, 1), depths_decoder=(1, 1), d_state=4)
    from_official("vmunet", tensors(config=wide), d_state=None, dims=[24, 48])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_classes": 1}, ConfigError, r"num_classes is 1, but final_conv.weight of shape \(2,"),
        ({"depths": [2, 2]}, ConfigError, r"depths is \[2, 2\], but layers.1.* makes it \[1, 2\]"),
        ({"dims": 16}, ConfigError, r"dims is \[16, 32, .* makes it \[8, 16\]"),
        ({"patch_norm": False}, ConfigError, "patch_norm is False, but patch_embed.norm.weight of"),
        ({"drop_rate": 0.1}, ConfigError, "drop_rate is 0.1, expected 0"),
        ({"depth": 2}, UnknownNameError, "unknown option .*'depth'.* 'depths'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[SsmError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        from_official("vmunet", tensors(), **arguments)
    assert "\n" not in str(caught.value)


def changed(change: str) -> dict[str, Tensor]:
    given = tensors("vmunet." if change == "mixed" else "")
    mixer = "layers_up.0.blocks.1.self_attention."
    if change == "missing":
        del given[mixer + "Ds"]
    elif change == "left over":
        given["layers.0.blocks.0.mlp.fc1.weight"] = torch.zeros(3)
    elif change == "misshapen":
        given[mixer + "Ds"] = torch.zeros(3)
    elif change == "no stem":
        del given["patch_embed.proj.weight"]
    elif change == "mixed":
        given["odd"] = torch.zeros(1)
    elif change == "no decoder":
        given = {k: v for k, v in given.items() if not k.startswith("layers_up")}
    elif change == "no block":
        given = {k: v for k, v in given.items() if not k.startswith("layers_up.0.blocks")}
    elif change == "no merging":
        del given["layers.0.downsample.reduction.weight"]
    return given


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"missing layers_up\.0\.blocks\.1\.self_attention\.Ds$"),
        ("left over", r"unexpected layers\.0\.blocks\.0\.mlp\.fc1\.weight$"),
        ("misshapen", r"blocks\.1\.self_attention\.Ds has shape \(3,\), expected \(128,\)$"),
        ("no stem", r"missing patch_embed\.proj\.weight: not a VM-UNet, or one under a prefix"),
        ("mixed", r"names without the prefix 'vmunet\.': odd$"),
        ("no decoder", r"missing layers_up\.0\.blocks\.0"),
        ("no block", r"blocks of the stages are \[1, 2\] down and \[0, 1\] up"),
        ("no merging", r"missing layers\.0\.downsample\.reduction\.weight$"),
    ],
)
def test_tensors_that_do_not_fit(change: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        from_official("vmunet", changed(change))
    assert str(caught.value).startswith("vmunet: ")
    assert "\n" not in str(caught.value)
