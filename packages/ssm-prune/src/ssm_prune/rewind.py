"""What a run may go back to: its weights after some step, in files named after their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_core.train.checkpoint import load_state, save_state
from ssm_prune.pruner import Rewind


def rewind_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, loader: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What `go_back` needs; the tensors are those of the run, not copies.

    The learning rates are not in it: they follow from the step.

    Args:
        loader: where the training data stand, in the middle of an epoch.
    """
    return {
        "module": dict(module.state_dict()),
        "optimizer": optimizer.state_dict(),
        "loader": loader,
    }


def save_rewind(folder: Path, state: Mapping[str, Any]) -> str:
    """Write a state into a run folder, all or nothing, and return the SHA-256 of its content.

    The same content gives the same file, so that a run that was killed before it could note the
    name writes no second one.
    """
    digest = state_digest(state)
    save_state(rewind_path(folder, digest), state)
    return digest


def load_rewind(folder: Path, digest: str) -> dict[str, Any]:
    """Read what `save_rewind` wrote.

    Raises:
        CheckpointError: it is missing, damaged or has another content.
    """
    path = rewind_path(folder, digest)
    advice = "put the file back, or start a new run with --resume no"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing, expected the weights that this run goes back to: {advice}"
        )
    state = load_state(path)
    if state_digest(state) != digest:
        raise CheckpointError(f"{path}: its content is not the one it is named after: {advice}")
    return state


def rewind_path(folder: Path, digest: str) -> Path:
    """Where a run keeps the state of this content."""
    return folder / "checkpoints" / f"rewind-{digest}.safetensors"


def state_digest(state: Any) -> str:
    """SHA-256 of nested tensors and JSON values, in hexadecimal.

    Of the content and not of a file's bytes: the order of the metadata in a file is not fixed.
    """
    found = hashlib.sha256()
    _feed(found, state)
    return found.hexdigest()


@torch.no_grad()
def go_back(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    rewind: Rewind,
) -> None:
    """Give a model and its optimizer back what `rewind` asks for, in place.

    Args:
        state: of the step to go back to, as `rewind_state` made it.
    """
    if rewind.weights != "present":
        module.load_state_dict(state["module"])
    if rewind.optimizer == "reset":
        optimizer.state.clear()
    elif rewind.optimizer == "restore":
        optimizer.load_state_dict(state["optimizer"])


@torch.no_grad()
def shuffle(parameters: Iterable[tuple[str, nn.Parameter]], rng: torch.Generator) -> None:
    """Put the values of each parameter into a random order.

    A fresh draw from the distribution that the initial weights had, whatever it was.
    """
    for _, parameter in parameters:
        order = torch.randperm(parameter.numel(), generator=rng).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().view(-1)
        found.update(f"tensor {value.dtype} {list(value.shape)}\0".encode())
        found.update(flat.view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        found.update(f"mapping {len(value)}\0".encode())
        for key in sorted(value, key=str):
            found.update(f"{key}\0".encode())
            _feed(found, value[key])
    elif isinstance(value, list | tuple):
        found.update(f"list {len(value)}\0".encode())
        for item in value:
            _feed(found, item)
    else:
        found.update(json.dumps(value).encode() + b"\0")
