"""`features_only` of every published model: maps of the right sizes, without any computation."""

from __future__ import annotations

import pytest

from ssm_vision.models.registry import FAMILIES

timm = pytest.importorskip("timm", reason="timm is not installed")
import ssm_vision.timm_models  # noqa: E402, F401

NAMES = [name for presets in FAMILIES.values() for name in presets]
#: channels of the stages
CHANNELS = {
    "mambavision_tiny": [80, 160, 320, 640],
    "mambavision_base": [128, 256, 512, 1024],
    "mambavision_large2": [196, 392, 784, 1568],
    "vanilla_vmamba_tiny": [96, 192, 384, 768],
    "vmamba_base_s2l15": [128, 256, 512, 1024],
    "vmunet": [96, 192, 384, 768],
    "vim_tiny_patch16_224": [192] * 4,
    "s4nd_vit_base": [768] * 4,
}
