"""VMamba against its equations, its published sizes, and its options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from vmamba_reference import jitter, vmamba

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError
from ssm_vision.models.vmamba import PRESETS, VMamba
from ssm_vision.models.vmamba_config import VMambaConfig, ungated
from ssm_vision.models.vss_block import LINEAR_STD

#: parameters and entries of the state dict (arXiv:2401.10166 and its repository)
PUBLISHED = {
    "vanilla_vmamba_tiny": (22_893_448, 212),
    "vanilla_vmamba_small": (44_417_416, 446),
    "vanilla_vmamba_base": (76_254_056, 446),
    "vmamba_tiny_s2l5": (30_705_832, 222),
    "vmamba_small_s2l15": (50_147_752, 402),
    "vmamba_base_s2l15": (88_557_800, 402),
    "vmamba_tiny_s1l8": (30_249_064, 276),
    "vmamba_small_s1l20": (49_012_840, 492),
    "vmamba_base_s1l20": (86_614_504, 492),
}
DROP_PATHS = (0.2, 0.3, 0.6, 0.2, 0.3, 0.6, 0.2, 0.3, 0.5)
VANILLA = VMambaConfig(depths=(1, 2), dims=(6, 10), d_state=3)
LATER = replace(ungated(1.0, 8, 96, 0.2), depths=(2, 1), dims=(6, 10))


def build(config: VMambaConfig, height: int = 32, width: int = 32) -> VMamba:
    return VMamba(config, DataInfo(input_shape=(3, height, width), n_outputs=5))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size(name: str) -> None:
    preset = PRESETS[name]
    assert preset.config.drop_path == dict(zip(PUBLISHED, DROP_PATHS, strict=True))[name]
    with torch.device("meta"):
        model = preset.build(preset.config, DataInfo((3, preset.image_size, 224), 1000))
    tensors = model.state_dict()
    assert (sum(t.numel() for t in tensors.values()), len(tensors)) == PUBLISHED[name]
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name][0]


def test_there_is_a_preset_for_every_published_size() -> None:
    assert set(PRESETS) == set(PUBLISHED)


@given(
    st.sampled_from([VANILLA, LATER]),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([1, 4, 16]),
    st.sampled_from(["merging", "conv2x2", "conv3x3"]),
    st.sampled_from(["patches", "convolutions"]),
    st.integers(8, 21),
    st.integers(8, 21),
)
@settings(max_examples=15, deadline=None)
def test_every_form_is_its_equations(
    config: VMambaConfig,
    ssm_ratio: float,
    d_state: int,
    downsample: Any,
    stem: Any,
    height: int,
    width: int,
) -> None:
    parts = {"downsample": downsample, "stem": stem}
    model = build(replace(config, ssm_ratio=ssm_ratio, d_state=d_state, **parts)).double().eval()
    jitter(model)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        *maps, logits = vmamba(images, model.state_dict())
        assert logits.std() > 0.1
        torch.testing.assert_close(model(images), logits, rtol=1e-8, atol=1e-8)
        for found, expected in zip(model.feature_maps(images, [0, 1]), maps, strict=True):
            torch.testing.assert_close(found.permute(0, 2, 3, 1), expected, rtol=1e-8, atol=1e-8)


def test_float32_of_four_stages() -> None:
    config = replace(ungated(2.0, 1, 8, 0.0), depths=(1, 1, 1, 1))
    model = build(config).double().eval()
    jitter(model)
    images = torch.randn(1, 3, 36, 52, dtype=torch.float64)
    with torch.no_grad():
        expected = vmamba(images, model.state_dict())[-1]
        y = model.float()(images.float()).double()
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", [(16, 24), (32, 20)])
def test_positions_shift_the_patches_of_images_of_any_size(size: tuple[int, int]) -> None:
    model = build(replace(VANILLA, positions=True), height=16, width=24).eval()
    assert model.pos_embed is not None
    assert model.pos_embed.shape == (1, 6, 4, 6)
    assert model.no_weight_decay() == {"pos_embed"}
    nn.init.normal_(model.pos_embed)
    plain = build(VANILLA).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "pos_embed"})
    grid = (size[0] // 4, size[1] // 4)
    table = nn.functional.interpolate(model.pos_embed, grid, mode="bicubic")
    plain.patch_embed.append(_Shift(table.permute(0, 2, 3, 1)))
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(model(images), plain(images))


class _Shift(nn.Module):
    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table


def test_initial_values() -> None:
    torch.manual_seed(0)
    model = build(replace(LATER, dims=(32, 64), positions=True))
    for part in model.modules():
        if isinstance(part, nn.Linear):
            assert part.weight.std().item() == pytest.approx(LINEAR_STD, rel=0.15)
            assert part.bias is None or part.bias.count_nonzero() == 0
        if isinstance(part, nn.Conv2d):
            bound = part.weight[0].numel() ** -0.5
            assert 0.8 * bound < part.weight.abs().max() <= bound
            assert part.bias is None or part.bias.count_nonzero() == part.bias.numel()
    assert model.pos_embed is not None
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


def test_drop_path_grows_over_all_blocks() -> None:
    model = build(replace(LATER, depths=(2, 3), drop_path=0.4))
    rates = [block.drop_path.rate for level in model.layers for block in level.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_stops_after_the_last_map_that_is_wanted() -> None:
    model = build(LATER)
    model.layers[1].register_module("blocks", None)  # would fail if it were used
    images = torch.randn(1, 3, 32, 32)
    assert len(model.feature_maps(images, [0])) == 1
    assert model.feature_maps(images, []) == []
    assert [tuple(m.shape) for m in model.feature_maps(images, [0, 0])] == [(1, 6, 8, 8)] * 2


def test_another_mixer_takes_the_place_of_ss2d() -> None:
    torch.manual_seed(0)
    model = build(replace(VANILLA, mixer="mamba", mixer_options={"d_state": 4})).eval()
    names = set(model.state_dict())
    assert "layers.0.blocks.0.op.layer.A_log" in names
    assert not any("A_logs" in name for name in names)
    # nothing else changes
    others = {name for name in names if ".op." not in name}
    assert others == {name for name in build(VANILLA).state_dict() if ".op." not in name}
    assert model(torch.randn(2, 3, 17, 30)).isfinite().all()


@pytest.mark.parametrize(
    ("config", "least"),
    [
        (VANILLA, 4),
        (replace(VANILLA, patch_size=2), 2),
        (replace(VANILLA, downsample="conv2x2"), 8),
        (LATER, 1),
        (replace(LATER, downsample="conv2x2"), 5),
    ],
)
def test_smallest_image(config: VMambaConfig, least: int) -> None:
    model = build(config).eval()
    assert model(torch.randn(2, 3, least, least)).isfinite().all()
    if least > 1:
        with pytest.raises(ShapeError, match=f"expected at least {least} x {least}"):
            model(torch.randn(2, 3, least - 1, 40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (2, 2)}, "expected a number of each for every stage"),
        ({"depths": (), "dims": ()}, "expected a number of each for every stage"),
        ({"depths": (2, 0, 2, 2)}, "depths is 0, expected an integer of at least 1"),
        ({"dims": (8, 16, -32, 64)}, "dims is -32, expected an integer of at least 1"),
        ({"mlp_ratio": -1.0}, "mlp_ratio is -1.0, expected 0 or more"),
        ({"stem": "one"}, "stem is 'one', expected 'patches' or 'convolutions'"),
        ({"downsample": "v3"}, "downsample is 'v3', expected 'merging' or 'conv2x2' or"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"patch_size": 2, "stem": "convolutions"}, "expected 4 and an even number"),
        ({"dims": (3, 6, 12, 24), "stem": "convolutions"}, "expected 4 and an even number"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"d_state": 0}, "d_state is 0"),
        ({"mixer_options": {"d_state": 4}}, "expected none without a mixer"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        VMambaConfig(**options)
    assert "\n" not in str(caught.value)
