"""Official VMamba state dicts: the golden, published shapes, old names, arguments, errors."""

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
from ssm_vision.models.vmamba import PRESETS, VMamba
from ssm_vision.models.vmamba_config import VMambaConfig, ungated
from ssm_vision.official.families import from_official

TOLERANCE = 1e-5
INFO = DataInfo(input_shape=(3, 32, 32), n_outputs=5)
VANILLA = VMambaConfig(depths=(1, 2), dims=(8, 16), d_state=3, drop_path=0.1)
LATER = replace(ungated(1.0, 8, 96, 0.1), depths=(1, 2), dims=(8, 16))
#: the original's arguments for LATER
ARGUMENTS = {
    "patch_size": 4,
    "in_chans": 3,
    "num_classes": 5,
    "depths": (1, 2),
    "dims": 8,
    "ssm_d_state": 1,
    "ssm_ratio": 1.0,
    "ssm_dt_rank": "auto",
    "ssm_act_layer": "silu",
    "ssm_conv": 3,
    "ssm_conv_bias": False,
    "ssm_drop_rate": 0.0,
    "ssm_init": "v0",
    "ssm_rank_ratio": 2.0,
    "forward_type": "v05_noz",
    "mlp_ratio": 4.0,
    "mlp_act_layer": "gelu",
    "mlp_drop_rate": 0.0,
    "gmlp": False,
    "drop_path_rate": 0.3,
    "patch_norm": True,
    "norm_layer": "LN2D",
    "downsample_version": "v3",
    "patchembed_version": "v2",
    "use_checkpoint": False,
    "posembed": False,
    "imgsize": 224,
}


@pytest.fixture(scope="module")
def goldens() -> Path:
    beside = Path(__file__).resolve().parents[4].parent / "shared" / "goldens"
    folder = Path(os.environ.get("SSM_GOLDENS", beside))
    if not folder.is_dir():
        pytest.skip(f"no folder of goldens {folder} (SSM_GOLDENS)")
    return folder


def small(config: VMambaConfig) -> VMamba:
    torch.manual_seed(3)
    model = VMamba(config, INFO)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def read(state_dict: Any, **config: Any) -> VMamba:
    model = from_official("vmamba", state_dict, **config)
    assert isinstance(model, VMamba)
    return model.eval()


def assert_same(found: VMamba, expected: VMamba) -> None:
    images = torch.randn(2, 3, 36, 52)
    with torch.no_grad():
        assert torch.equal(found(images), expected(images))


def test_golden(goldens: Path) -> None:
    with safe_open(goldens / "vmamba_v0_odd.safetensors", "pt") as file:
        arguments = json.loads(file.metadata()["kw"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state_dict = {k.removeprefix("sd."): v for k, v in tensors.items() if k.startswith("sd.")}
    for model in (
        read(state_dict, **arguments),
        read(tensors, prefix="sd.", **{k: str(v) for k, v in arguments.items()}),
        read(state_dict),
    ):
        assert model.state_dict().keys() == state_dict.keys()
        with torch.no_grad():
            y = model(tensors["x"])
        assert (y - tensors["y"]).abs().max() <= TOLERANCE * tensors["y"].abs().max()


@pytest.mark.parametrize("name", ["vanilla_vmamba_tiny", "vmamba_tiny_s1l8"])
def test_published_shapes(goldens: Path, name: str) -> None:
    published = json.loads((goldens / "published_shapes.json").read_text(encoding="utf-8"))[name]
    with torch.device("meta"):
        model = PRESETS[name].build(PRESETS[name].config, DataInfo((3, 224, 224), 1000))
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == published


VARIANTS = {
    "v0": VANILLA,
    "noz": LATER,
    "s2": replace(LATER, ssm_ratio=2.0, d_state=4),
    "gated, later": replace(LATER, gated=True, conv_bias=True),
    "merging and MLP": replace(VANILLA, mlp_ratio=2.0, patch_size=2),
    "conv2x2": replace(VANILLA, downsample="conv2x2", dt_rank=3),
    "positions": replace(VANILLA, positions=True),
    "one stage": replace(VANILLA, depths=(2,), dims=(8,)),
    "any widths": replace(LATER, dims=(8, 20)),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_reads_back_what_it_wrote(config: VMambaConfig) -> None:
    model = small(config)
    assert_same(read(model.state_dict()), model)


@pytest.mark.parametrize("config", [VANILLA, LATER], ids=["v0", "noz"])
def test_tensors_say_the_form(config: VMambaConfig) -> None:
    assert read(small(config).state_dict()).config == config


def test_all_arguments_of_the_original() -> None:
    model = small(LATER)
    found = read(model.state_dict(), **ARGUMENTS)
    assert_same(found, model)
    assert found.config == replace(LATER, drop_path=0.3)
    assert found.info == DataInfo((3, 224, 224), 5)
    fixed = {"ssm_conv": 5, "ssm_conv_bias": False, "ssm_act_layer": "gelu"}
    vanilla = small(VANILLA)
    assert_same(read(vanilla.state_dict(), forward_type="v0", **fixed), vanilla)


def test_given_ratios_where_the_first_width_is_rounded() -> None:
    ratios = {"ssm_ratio": 1.4, "mlp_ratio": 2.7}
    model = small(replace(LATER, **ratios))
    assert model.layers[0].blocks[0].mlp.fc1.weight.shape[0] == 21
    assert model.layers[1].blocks[0].mlp.fc1.weight.shape[0] == 43
    assert_same(read(model.state_dict(), **ratios), model)
    with pytest.raises(CheckpointError, match=r"layers\.1\.blocks\.0\.mlp\.fc1"):
        read(model.state_dict())


@pytest.mark.parametrize(
    ("forward_type", "float32_scan"),
    [(None, True), ("v0", True), ("v2", True), ("v3_no32", False), ("v05", False)],
)
def test_which_forms_read_float32(forward_type: str | None, float32_scan: bool) -> None:
    found = read(small(VANILLA).state_dict(), forward_type=forward_type)
    assert found.config.float32_scan is float32_scan


def test_names_of_the_first_release() -> None:
    model = small(VANILLA)
    old = {
        name.replace("patch_embed.0", "patch_embed.proj")
        .replace("patch_embed.2", "patch_embed.norm")
        .replace(".op.", ".self_attention.")
        .replace("0.norm.", "0.ln_1.")
        .replace("1.norm.", "1.ln_1.")
        .replace("classifier.", ""): value
        for name, value in model.state_dict().items()
    }
    assert "layers.1.blocks.1.ln_1.weight" in old
    assert "layers.0.downsample.norm.weight" in old
    assert "head.weight" in old
    assert_same(read(old), model)


def test_linear_maps_saved_as_convolutions() -> None:
    model = small(LATER)
    words = ("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")
    saved = {
        name: value[:, :, None, None] if name.endswith(words) else value
        for name, value in model.state_dict().items()
    }
    assert_same(read(saved), model)


def test_files_of_the_training_script() -> None:
    model, averaged = small(VANILLA), small(replace(VANILLA, d_state=2))
    file: dict[str, Any] = {
        "model_ema": averaged.state_dict(),
        "model": model.state_dict(),
        "epoch": 299,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
    }
    assert_same(read(file), model)
    assert_same(read(file, prefix="model_ema."), averaged)
    assert_same(read({"state_dict": model.state_dict()}), model)
    wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
    assert_same(read({"model": wrapped, "epoch": 1}, prefix="module."), model)


def test_table_of_positions_says_the_image_size() -> None:
    model = VMamba(replace(VANILLA, positions=True), DataInfo((3, 24, 40), 5))
    found = read(model.state_dict(), imgsize=64, posembed=True)
    assert found.image_size == (24, 40)
    assert found.config.positions


def _without(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in tensors.items() if name not in k}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: _without("A_logs", t), "missing layers.0.blocks.0.op.A_logs"),
        (lambda t: _without("1.blocks.0.norm.weight", t), "missing layers.1.blocks.0.norm.weight"),
        (lambda t: _without("1.blocks.1.op.Ds", t), "missing layers.1.blocks.1.op.Ds"),
        (lambda t: t | {"surplus": torch.zeros(2)}, "unexpected surplus"),
        (
            lambda t: t | {"layers.1.blocks.1.op.Ds": torch.zeros(3)},
            r"layers.1.blocks.1.op.Ds has shape \(3,\), expected \(64,\)",
        ),
        (
            lambda t: t | {"layers.0.blocks.0.op.conv2d.weight": torch.zeros(8, 1, 5, 5)},
            r"conv2d.weight has shape \(8, 1, 5, 5\), expected \(8, 1, 3, 3\)",
        ),
        (lambda _: {}, "missing patch_embed.0.weight"),
        (lambda _: [], "expected a mapping"),
    ],
)
def test_tensors_that_do_not_fit(change: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read(change(small(LATER).state_dict()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forward_type": "v0"}, "'v0', but .*in_proj.weight has one row .*, expected two"),
        ({"forward_type": "v052d_noz"}, "forward_type is 'v052d_noz', expected one of v0,"),
        ({"forward_type": "v05_noz_oact"}, "expected one of v0,"),
        ({"depths": [2, 2]}, r"depths is \[2, 2\], but .* makes it \[1, 2\]"),
        ({"dims": 16}, r"dims is \[16, 32\], but .* makes it \[8, 16\]"),
        ({"in_chans": 1}, "in_chans is 1, but patch_embed.0.weight"),
        ({"num_classes": 1000}, "num_classes is 1000, but classifier.head.weight"),
        ({"ssm_d_state": 16}, "ssm_d_state is 16, but .*A_logs"),
        ({"ssm_ratio": 2.0}, "ssm_ratio is 2.0, but .*out_proj.weight .* makes it 1.0"),
        ({"ssm_dt_rank": 3}, "ssm_dt_rank is 3, but .*dt_projs_weight"),
        ({"ssm_conv": 5}, "ssm_conv is 5, but .*conv2d.weight"),
        ({"ssm_conv_bias": True}, "ssm_conv_bias is True, but a state dict without .*conv2d.bias"),
        ({"mlp_ratio": 2.0}, "mlp_ratio is 2.0, but .*fc1.weight .* makes it 4.0"),
        ({"downsample_version": "v2"}, "downsample_version is 'v2', but .* makes it 'v3'"),
        ({"patchembed_version": "v1"}, "patchembed_version is 'v1', but .* makes it 'v2'"),
        ({"posembed": True}, "posembed is True, but a state dict without pos_embed"),
        ({"gmlp": True}, "gmlp is True, expected False"),
        ({"norm_layer": "bn"}, "norm_layer is 'bn', expected 'ln' or 'ln2d'"),
        ({"ssm_act_layer": "gelu"}, "ssm_act_layer is 'gelu', expected 'silu'"),
        ({"ssm_drop_rate": 0.1}, "ssm_drop_rate is 0.1, expected 0.0"),
        ({"drop_path_rate": 1.0}, "drop_path is 1.0"),
    ],
)
def test_arguments_that_contradict_the_tensors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(small(LATER).state_dict(), **arguments)
    assert "\n" not in str(caught.value)


def test_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ssm_ratio'"):
        read(small(LATER).state_dict(), ssm_ration=2)
