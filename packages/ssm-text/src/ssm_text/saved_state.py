"""Texts in a file, to go on with tomorrow: the model's state, what comes next, random generators.

One safetensors file, written all or nothing; reading it runs no code. The model itself is not in
it: its class, configuration, size of the vocabulary and a fingerprint of its weights are, and only
that model goes on from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssm_core.errors import CheckpointError
from ssm_core.train import checkpoint
from ssm_text.causal_lm import CausalLM
from ssm_text.state_tree import leaves, rebuilt
from ssm_text.texts import Texts, evaluating

KIND = "ssm-text-state-1"


def save_state(path: str | Path, texts: Texts) -> None:
    """Write `texts` to `path`, all or nothing.

    Tokens that were chosen and not yet read are read first, so that the file is complete.

    Raises:
        CheckpointError: nothing was read so far, or the file cannot be written.

    Cost: at most one step of the model, and the size of its state; for attention that grows with
    the text.
    """
    with evaluating(texts.model):
        texts.settle()
    if texts.logits is None:
        raise CheckpointError(f"{path}: there is nothing to save, read a prompt first")
    content = {
        "kind": KIND,
        "model": identity(texts.model),
        "vocab_size": texts.vocab_size,
        "lengths": texts.lengths,
        "state": leaves(texts.state),
        "logits": texts.logits,
        "recent": texts.recent,
        "seen": texts.seen,
        "generators": [generator.get_state() for generator in texts.generators],
    }
    try:
        checkpoint.save_state(Path(path), content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_state(path: str | Path, model: CausalLM) -> Texts:
    """Read what `save_state` wrote, for the same model; tensors go to its device.

    What follows is bit for bit what would have followed without the interruption, on the same
    machine.

    Raises:
        CheckpointError: the file is missing, damaged, something else, or of another model; says
            in what they differ.
    """
    content = checkpoint.load_state(Path(path))
    if content.get("kind") != KIND:
        raise CheckpointError(
            f"{path}: not a saved text (kind {content.get('kind')!r}, expected {KIND!r})"
        )
    _check_model(path, content.get("model"), identity(model))
    try:
        return _restored(content, model)
    except (KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: damaged, its content does not fit: {reason}") from error


def _restored(content: dict[str, Any], model: CausalLM) -> Texts:
    lengths = [int(length) for length in content["lengths"]]
    texts = Texts(model, len(lengths), vocab_size=content["vocab_size"])
    form = model.initial_state(len(lengths))
    if len(content["state"]) != len(leaves(form)):
        raise ValueError(f"{len(content['state'])} tensors, expected {len(leaves(form))}")
    if any(len(leaf) != len(lengths) for leaf in [*content["state"], content["logits"]]):
        raise ValueError(f"not {len(lengths)} texts everywhere")
    texts.lengths = lengths
    texts.state = rebuilt(form, [leaf.to(texts.device) for leaf in content["state"]])
    texts.logits = content["logits"].to(texts.device)
    texts.recent.copy_(content["recent"])
    texts.seen.copy_(content["seen"])
    for generator, state in zip(texts.generators, content["generators"], strict=True):
        generator.set_state(state)
    return texts


def identity(model: CausalLM) -> dict[str, str]:
    """What a state belongs to, as text.

    The fingerprint is taken of the first 64 numbers of each tensor: enough to tell trained weights
    apart, and quick for large models.
    """
    config = getattr(model, "config", None)
    options = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else {}  # type: ignore[arg-type]
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(_first_bytes(value))
    return {
        "class": type(model).__name__,
        "configuration": json.dumps(options, sort_keys=True, default=str),
        "vocabulary": str(model.vocab_size),
        "weights": found.hexdigest(),
    }


def _first_bytes(value: Tensor) -> bytes:
    first = value.detach().reshape(-1)[:64].cpu().contiguous()
    return bytes(first.view(torch.uint8).tolist()) if first.numel() else b""


def _check_model(path: str | Path, saved: object, present: dict[str, str]) -> None:
    for key, value in present.items():
        other = saved.get(key) if isinstance(saved, dict) else None
        if other == value:
            continue
        said = (
            f"other {key}"
            if key == "weights"
            else f"{key} {other!s:.300}, this one has {value:.300}"
        )
        raise CheckpointError(
            f"{path}: the state of another model ({said}); give the model it was saved with"
        )
