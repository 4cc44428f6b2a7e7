"""Put the tensors of a checkpoint into a language model, without holding both in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_core.norm import at_least_float32
from ssm_core.official.tensors import Tensors, mismatches
from ssm_text.mamba_lm import MambaLM
from ssm_text.official.names import EMBEDDING, HEAD


@dataclass(frozen=True)
class Placement:
    """What becomes of the tensors of a checkpoint.

    Args:
        dtype: their type; None: unchanged.
        device: where they go; None: nowhere.
        copy: copy them even where type and device are right.
    """

    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    copy: bool = False

    def __call__(self, tensor: Tensor, sensitive: bool) -> Tensor:
        """The tensor in its type and place; a `sensitive` one in no half precision."""
        dtype = tensor.dtype if self.dtype is None else self.dtype
        if sensitive and self.dtype is not None:
            dtype = at_least_float32(torch.empty(0, dtype=dtype)).dtype
        return tensor.to(self.device or tensor.device, dtype, copy=self.copy)


def fill(owner: str, model: MambaLM, tensors: Tensors, placement: Placement) -> MambaLM:
    """Give every parameter of the model its tensor; all of them or none.

    The tensors leave the mapping one by one, so that each exists twice at most for a moment.

    Raises:
        CheckpointError: tensors are missing, left over, misshapen or not floating-point numbers:
            one line with all of them; or a tied head that is not the embedding.
    """
    own = dict(model.state_dict())
    if model.config.tie_embeddings:
        _check_tie(owner, tensors)
        tensors.pop(HEAD, None)
        own.pop(HEAD)
    problems = [text for text in mismatches(own, tensors) if text]
    problems += [
        f"{name} is {value.dtype}, expected floating-point numbers"
        for name, value in tensors.items()
        if name in own and not value.is_floating_point()
    ]
    if problems:
        raise CheckpointError(f"{owner}: the state dict does not fit: {'; '.join(problems)}")
    for name in own:
        _assign(model, name, tensors.pop(name), placement)
    if model.config.tie_embeddings:
        model.lm_head.weight = model.backbone.embedding.weight
    return model


def _check_tie(owner: str, tensors: Tensors) -> None:
    head, embedding = tensors.get(HEAD), tensors.get(EMBEDDING)
    if head is None or embedding is None or head.data_ptr() == embedding.data_ptr():
        return
    if not torch.equal(head, embedding):
        raise CheckpointError(
            f"{owner}: {HEAD} differs from {EMBEDDING}, but the configuration ties them; set "
            "tie_embeddings (tie_word_embeddings) to false to keep both"
        )


def _assign(model: nn.Module, name: str, tensor: Tensor, placement: Placement) -> None:
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    old = getattr(module, last)
    sensitive = getattr(old, "_no_weight_decay", False)
    new = nn.Parameter(placement(tensor, sensitive), requires_grad=old.requires_grad)
    new.__dict__.update(old.__dict__)  # the marks for optimizers
    setattr(module, last, new)
