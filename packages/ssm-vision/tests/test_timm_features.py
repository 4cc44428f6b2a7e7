"""`features_only` of every published model: channels, strides and the maps themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssm_vision.models.registry import FAMILIES

timm = pytest.importorskip("timm", reason="timm is not installed")
import ssm_vision.timm_models  # noqa: E402, F401

#: few blocks: the widths and strides are those of the published models
SHALLOW: dict[str, dict[str, Any]] = {
    "vim": {"depth": 4},
    "mambavision": {"depths": (1, 1, 1, 1)},
    "vmamba": {"depths": (1, 1, 1, 1)},
    "vmunet": {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)},
    "s4nd_vit": {"n_layers": 4},
}
FAMILY = {name: family for family, presets in FAMILIES.items() for name in presets}
#: of the first stage
WIDTH = {
    **{"vim_tiny": 192, "vim_small": 384, "vim_base": 768, "s4nd_vit_base": 768, "vmunet": 96},
    **{"mambavision_tiny": 80, "mambavision_tiny2": 80, "mambavision_small": 96},
    **{"mambavision_base": 128, "mambavision_large": 196, "mambavision_large2": 196},
    **{"vanilla_vmamba_tiny": 96, "vanilla_vmamba_small": 96, "vanilla_vmamba_base": 128},
    **{"vmamba_tiny": 96, "vmamba_small": 96, "vmamba_base": 128},
}


def stages(name: str) -> tuple[list[int], list[int]]:
    """Channels and strides that the last four stages must have."""
    width = WIDTH[max((known for known in WIDTH if name.startswith(known)), key=len)]
    if FAMILY[name] in ("vim", "s4nd_vit"):
        return [width] * 4, [8 if "stride8" in name else 16] * 4
    return [width * 2**i for i in range(4)], [4 * 2**i for i in range(4)]


@pytest.mark.parametrize("name", FAMILY)
def test_channels_and_strides(name: str) -> None:
    with torch.device("meta"):
        net = timm.create_model(name, features_only=True, **SHALLOW[FAMILY[name]])
        some = timm.create_model(
            name, features_only=True, out_indices=(1, 3), **SHALLOW[FAMILY[name]]
        )
    channels, strides = stages(name)
    assert net.feature_info.channels() == channels
    assert net.feature_info.reduction() == strides
    assert some.feature_info.channels() == [channels[1], channels[3]]
    assert some.feature_info.reduction() == [strides[1], strides[3]]


@pytest.mark.parametrize(
    "name",
    [
        *("mambavision_tiny", "vanilla_vmamba_tiny", "vmamba_tiny_s1l8", "vmamba_tiny_s2l5"),
        *("vmunet", "vim_tiny_patch16_224", "vim_tiny_patch16_stride8_224", "s4nd_vit_base"),
    ],
)
def test_maps(name: str) -> None:
    net = timm.create_model(
        name, features_only=True, out_indices=(1, 2, 3), img_size=(64, 96), **SHALLOW[FAMILY[name]]
    ).eval()
    with torch.no_grad():
        maps = net(torch.randn(1, 3, 64, 96))
    channels, strides = stages(name)
    overlap = 1 if "stride8" in name else 0  # patches of 16 pixels, 8 apart, without padding
    assert [tuple(m.shape) for m in maps] == [
        (1, d, 64 // stride - overlap, 96 // stride - overlap)
        for d, stride in zip(channels[1:], strides[1:], strict=True)
    ]
    assert all(m.isfinite().all() for m in maps)
