"""What the hook `ssm_prune_export` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Artifact:
    """A model in the form that `ssm-prune export` was asked for.

    Attributes:
        model: the model to write.
        metadata: texts to add to the weights file, such as the new sizes, so that whoever loads it
            can build the model.
        note: one sentence for the user: what was done, what was not.
    """

    model: nn.Module
    metadata: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
