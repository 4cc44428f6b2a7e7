"""All models by name, family by family."""

from __future__ import annotations

from collections.abc import Mapping

from ssm_vision.models import baselines, mambavision, s4nd_vit, vim, vmamba, vmunet
from ssm_vision.models.preset import Preset

#: state space models for images
FAMILIES: Mapping[str, Mapping[str, Preset]] = {
    "vim": vim.PRESETS,
    "mambavision": mambavision.PRESETS,
    "vmamba": vmamba.PRESETS,
    "vmunet": vmunet.PRESETS,
    "s4nd_vit": s4nd_vit.PRESETS,
}
#: what they are compared with
BASELINES: Mapping[str, Mapping[str, Preset]] = {"baselines": baselines.PRESETS}
