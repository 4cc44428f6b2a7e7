"""Put the tensors of a checkpoint into a model, all of them or none."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import Tensors, mismatches

Model = TypeVar("Model", bound=nn.Module)


def load_strictly(owner: str, model: Model, tensors: Tensors, hint: str = "") -> Model:
    """Copy the tensors into the model's parameters and buffers, in the types that these have.

    Args:
        hint: what to do, at the end of an error.
    Raises:
        CheckpointError: tensors are missing, left over or misshapen: one line with all of them.
    """
    problems = [text for text in mismatches(model.state_dict(), tensors) if text]
    if problems:
        raise CheckpointError(f"{owner}: the state dict does not fit: {'; '.join(problems)}{hint}")
    model.load_state_dict(tensors)
    return model
