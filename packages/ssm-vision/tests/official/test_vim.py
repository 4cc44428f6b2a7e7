"""Checkpoints of hustvl/Vim: reference values, keys, what tensors say and what arguments say."""

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
from ssm_vision.models.vim import PRESETS, Vim
from ssm_vision.models.vim_config import VimConfig
from ssm_vision.official.families import from_official

REPOSITORY = Path(__file__).resolve().parents[4]
SMALL = VimConfig(
    patch_size=8, stride=4, embed_dim=16, depth=2, mixer_options={"d_state": 3}, drop_path=0.1
)
INFO = DataInfo(input_shape=(3, 32, 32), n_outputs=5)


@pytest.fixture
def goldens() -> Path:
    root = Path(os.environ.get("SSM_GOLDENS", REPOSITORY.parent / "shared" / "goldens"))
    if not root.is_dir():
        pytest.skip(f"no folder of reference values {root} (SSM_GOLDENS)")
    return root


def state(info: DataInfo = INFO, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Vim(replace(SMALL, **options), info).state_dict()


def load(tensors: dict[str, Tensor], **config: Any) -> Vim:
    """With the arguments that the shapes of `state` cannot tell."""
    model = from_official("vim", tensors, **({"img_size": 32, "stride": 4} | config))
    assert isinstance(model, Vim)
    return model


def test_golden(goldens: Path) -> None:
    with safe_open(goldens / "vim_mid.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["kw"])
    sd = {name.removeprefix("sd."): t for name, t in tensors.items() if name.startswith("sd.")}
    model = from_official("vim", sd, **config).eval()
    with torch.no_grad():
        y = model(tensors["x"])
    assert (y - tensors["y"]).abs().max() <= 1e-4 * tensors["y"].abs().max()
    assert set(model.state_dict()) == set(sd)


def test_published_shapes(goldens: Path) -> None:
    published = json.loads((goldens / "published_shapes.json").read_text(encoding="utf-8"))
    (shapes,) = (shapes for name, shapes in published.items() if name.startswith("vim_tiny"))
    preset = PRESETS["vim_tiny_patch16_224"]
    with torch.device("meta"):
        model = preset.build(preset.config, DataInfo((3, 224, 224), 1000))
    assert {name: list(v.shape) for name, v in model.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({}, {}),
        ({"class_token": "head"}, {"use_middle_cls_token": False, "if_cls_token": True}),
        (
            {"class_token": "random"},
            {"use_middle_cls_token": False, "if_random_cls_token_position": True},
        ),
        ({"class_token": "double"}, {"use_double_cls_token": True}),
        ({"class_token": "none", "pool": "last"}, {}),
        ({"class_token": "none", "pool": "mean"}, {"final_pool_type": "mean"}),
        ({"class_token": "none", "pool": "max"}, {"final_pool_type": "max"}),
        ({"class_token": "none", "pool": "all"}, {"final_pool_type": "all"}),
        ({"positions": False}, {"if_abs_pos_embed": False}),
        ({"norm": "layer"}, {"rms_norm": False}),
        ({"norm_eps": 1e-3}, {"norm_epsilon": 1e-3}),
        ({"mixer_options": {"d_state": 3, "divide_out": False}}, {"if_divide_out": False}),
        ({"mixer_options": {"d_state": 3, "layer_scale": 0.1}}, {"init_layer_scale": 0.1}),
        (
            {"mixer_options": {"d_state": 5, "d_conv": 3, "expand": 1, "dt_rank": 2}},
            {"ssm_cfg": {"d_conv": 3, "expand": 1, "dt_rank": 2, "dt_min": 0.01}, "d_state": 5},
        ),
        ({"mixer": "mamba"}, {"bimamba_type": "none"}),
    ],
    ids=str,
)
def test_arguments_of_the_original(options: dict[str, Any], config: dict[str, Any]) -> None:
    tensors = state(**options)
    for t in tensors.values():
        t.add_(torch.randn_like(t) * 0.1)
    expected = Vim(replace(SMALL, **options), INFO).eval()
    expected.load_state_dict(tensors)
    model = load(tensors, **config).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), expected(images))
    assert model.config.class_token == expected.config.class_token


def test_an_argument_counts_beyond_the_tensors() -> None:
    """What only arguments say changes the result, so that a forgotten one would be seen above."""
    images = torch.randn(2, 3, 32, 32)
    for options, config in (
        ({}, {"use_middle_cls_token": False}),
        ({}, {"if_divide_out": False}),
        ({}, {"norm_epsilon": 1e-2}),
        ({"class_token": "none"}, {"final_pool_type": "mean"}),
    ):
        tensors = state(**options)
        plain, other = load(tensors).eval(), load(tensors, **config).eval()
        assert not torch.allclose(plain(images), other(images), atol=1e-5)


def test_names_without_effect_are_taken() -> None:
    published = {
        "fused_add_norm": True,
        "residual_in_fp32": True,
        "if_rope": False,
        "if_rope_residual": False,
        "if_bidirectional": False,
        "bimamba_type": "v2",
        "if_devide_out": True,
        "flip_img_sequences_ratio": -1.0,
        "drop_block_rate": None,
        "ft_seq_len": None,
        "pt_hw_seq_len": 14,
        "initializer_cfg": None,
        "ssm_cfg": None,
        "channels": 3,
        "num_classes": 5,
        "embed_dim": 16,
        "depth": 2,
        "patch_size": (8, 8),
        "img_size": (32, 32),
        "drop_rate": 0.1,
        "drop_path_rate": 0.2,
    }
    model = load(state(), **published)
    assert model.pos_drop.p == 0.1
    assert model.layers[1].drop_path.rate == 0.2
    assert load(state()).layers[1].drop_path.rate == 0.1  # the original's default


class TestGeometry:
    """Image size and stride, which only the number of positions tells."""

    @pytest.mark.parametrize("stride", [16, 8])
    def test_published_strides_need_no_argument(self, stride: int) -> None:
        info = DataInfo(input_shape=(3, 224, 224), n_outputs=5)
        tensors = state(info, patch_size=16, stride=stride)
        model = from_official("vim", tensors)
        assert isinstance(model, Vim)
        assert (model.config.stride, model.image_size) == (stride, (224, 224))

    def test_stride_alone(self) -> None:
        model = from_official("vim", state(), stride=4)
        assert model.image_size == (32, 32)

    def test_image_size_alone(self) -> None:
        model = from_official("vim", state(), img_size=32)
        assert isinstance(model, Vim)
        assert model.config.stride == 4

    def test_images_that_are_not_square(self) -> None:
        tensors = state(DataInfo(input_shape=(3, 20, 28), n_outputs=5))
        model = load(tensors, img_size=(20, 28))
        assert (model.places.rows, model.places.columns) == (4, 6)

    @pytest.mark.parametrize("config", [{}, {"img_size": 30}, {"img_size": 32, "stride": 8}])
    def test_positions_that_do_not_fit(self, config: dict[str, Any]) -> None:
        tensors = state()
        with pytest.raises(ConfigError, match=r"pos_embed has 50 rows, 49 for patches: give"):
            from_official("vim", tensors, **config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"if_rope": True}, "if_rope is True, expected False: not supported"),
        ({"if_bidirectional": True}, "if_bidirectional is True"),
        ({"bimamba_type": "v1"}, "bimamba_type is 'v1'"),
        ({"flip_img_sequences_ratio": 0.5}, "flip_img_sequences_ratio is 0.5"),
        ({"final_pool_type": "sum"}, "final_pool_type is 'sum', expected 'none' or"),
        ({"embed_dim": 32}, "embed_dim is 32, but norm_f.weight of shape"),
        ({"depth": 3}, "depth is 3, but layers.1.norm.weight"),
        ({"if_cls_token": False}, "if_cls_token is False, but cls_token of shape"),
        ({"use_double_cls_token": True}, "use_double_cls_token is True, but a state dict without"),
        ({"rms_norm": False}, "rms_norm is False, but a state dict without norm_f.bias"),
        ({"bimamba_type": "none"}, "bimamba_type is 'none', but layers.0.mixer.conv1d_b.weight"),
        ({"init_layer_scale": 0.1}, "init_layer_scale is 0.1, but the state dict has no"),
        ({"patch_size": (8, 4)}, "patch_size is .* the same on both sides"),
        ({"stride": 0}, "stride is 0, expected an integer of at least 1"),
        ({"img_size": (32, 32, 3)}, "img_size is .* expected a number or a pair"),
        ({"ssm_cfg": {"d_state": 4}}, "d_state is 4, but layers.0.mixer.A_log"),
        ({"ssm_cfg": {"expand": 3}}, "expand is 3, but"),
        ({"drop_path_rate": 1.5}, "drop_path is 1.5"),
    ],
)
def test_arguments_that_contradict_or_are_not_supported(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(state(), **config)
    assert "\n" not in str(caught.value)


def test_unknown_arguments() -> None:
    with pytest.raises(UnknownNameError, match="'if_clstoken': did you mean 'if_cls_token'"):
        load(state(), if_clstoken=True)
    with pytest.raises(UnknownNameError, match="'d_stat'"):
        load(state(), ssm_cfg={"d_stat": 3})


def test_shared_directions_are_refused() -> None:
    tensors = {name: t for name, t in state().items() if "_b." not in name}
    with pytest.raises(ConfigError, match="A_b_log without conv1d_b"):
        load(tensors)


@pytest.mark.parametrize(
    "name",
    [
        *("pos_embed", "cls_token", "patch_embed.proj.weight", "head.weight", "norm_f.weight"),
        *("layers.0.mixer.A_b_log", "layers.0.mixer.conv1d_b.weight", "layers.1.norm.weight"),
        *("layers.0.mixer.D", "layers.0.mixer.dt_proj.weight"),
    ],
)
def test_missing_unexpected_and_misshapen_tensors_are_named(name: str) -> None:
    wrong = state()
    wrong[name + ".more"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=f"unexpected {name}.more"):
        load(wrong)
    if name not in ("pos_embed", "cls_token"):  # without these it is another model
        wrong = state()
        del wrong[name]
        with pytest.raises(CheckpointError, match=f"missing .*{name}"):
            load(wrong, num_classes=5)
    if name == "layers.1.norm.weight":
        wrong = state()
        wrong[name] = torch.zeros(17)
        with pytest.raises(CheckpointError, match=rf"{name} has shape \(17,\), expected \(16,\)"):
            load(wrong)
