"""The names of the tensors in both formats; ours are those of state-spaces/mamba."""

from __future__ import annotations

from ssm_core.official.tensors import Tensors

EMBEDDING = "backbone.embedding.weight"
HEAD = "lm_head.weight"
HUGGINGFACE_EMBEDDING = "backbone.embeddings.weight"

#: put before every name by wrappers for several GPUs and by `torch.compile`
_WRAPPERS = ("module.", "_orig_mod.")
#: what the names of a model without its head begin with
_BARE = ("embedding.", "embeddings.", "layers.", "norm_f.")


def in_our_names(tensors: Tensors) -> Tensors:
    """Rename the tensors of either format, of a wrapped model, or of one without "backbone."."""
    for wrapper in _WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            inside = {name.removeprefix(wrapper): value for name, value in tensors.items()}
            return in_our_names(inside)  # wrappers may be wrapped
    return {_ours(name): value for name, value in tensors.items()}


def in_huggingface_names(tensors: Tensors) -> Tensors:
    """Rename our tensors to those of transformers."""
    return {
        HUGGINGFACE_EMBEDDING if name == EMBEDDING else name: value
        for name, value in tensors.items()
    }


def _ours(name: str) -> str:
    if name.startswith(_BARE):
        name = f"backbone.{name}"
    return EMBEDDING if name == HUGGINGFACE_EMBEDDING else name
