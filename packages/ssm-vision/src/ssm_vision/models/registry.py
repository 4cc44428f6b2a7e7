"""All models by name, family by family."""

from __future__ import annotations

from collections.abc import Mapping

from ssm_vision.models import baselines
from ssm_vision.models.preset import Preset

#: state space models for images
FAMILIES: Mapping[str, Mapping[str, Preset]] = {}
#: what they are compared with
BASELINES: Mapping[str, Mapping[str, Preset]] = {"baselines": baselines.PRESETS}
