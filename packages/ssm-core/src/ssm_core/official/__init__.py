"""Layers from checkpoints of the original repositories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ssm_core.errors import UnknownNameError
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.official import mamba, mamba2, s4, s5
from ssm_core.official.options import plain
from ssm_core.official.tensors import StateDict, Tensors, collect

Landmarks: TypeAlias = tuple[tuple[str, ...], ...]
Builder: TypeAlias = Callable[[Tensors, Mapping[str, Any], str], SequenceLayer]


class Family(NamedTuple):
    """How the layers of one original repository are read."""

    build: Builder
    separator: str
    """between the levels of a name"""
    landmarks: Landmarks
    """names by which a form of the layer is found inside a larger checkpoint"""


FAMILIES = {
    "s4": Family(s4.build, s4.SEPARATOR, s4.LANDMARKS),
    "s4d": Family(s4.build_s4d, s4.SEPARATOR, s4.LANDMARKS),
    "s5": Family(s5.build, s5.SEPARATOR, s5.LANDMARKS),
    "mamba": Family(mamba.build, mamba.SEPARATOR, mamba.LANDMARKS),
    "mamba2": Family(mamba2.build, mamba2.SEPARATOR, mamba2.LANDMARKS),
}


def from_official(
    family: str, state_dict: StateDict, *, prefix: str = "", **config: Any
) -> SequenceLayer:
    """Build one layer from the tensors of an original implementation, under the names they have
    there.

    Sizes and everything else that names and shapes of the tensors say is read from them. Parameters
    are copies in the type and on the device of the tensors. Nothing is unpickled: read the file
    first, for instance with `safetensors.torch.load_file` or `torch.load(weights_only=True)`.

    Args:
        family: "s4" (state-spaces/s4, models/s4/s4.py: the block, or the convolution layer alone;
            mode "dplr" gives an S4, "diag" an S4D), "s4d" (the same with mode "diag", or the
            minimal layer of models/s4/s4d.py), "s5" (lindermanlab/S5, a tree or a flat dict of JAX
            or numpy arrays: a sequence layer without its norm, or the SSM alone), "mamba" or
            "mamba2" (state-spaces/mamba, the mixers).
        state_dict: name -> tensor or array.
        prefix: take only the tensors whose name begins with it, "backbone.layers.0.mixer." for
            instance.
        config: what the tensors do not say, under the names of the original constructor or of our
            configuration; left out, an option has the original's default value. What the tensors
            do say is checked. Values may be texts, as in the metadata of a file.
    Raises:
        UnknownNameError: an unknown family or option; names the nearest.
        ConfigError: an option that contradicts the tensors, or that our layer refuses.
        CheckpointError: tensors are missing, left over or misshapen: one line with all of them.

    Cost: that of the layer's construction and one copy.
    """
    if family not in FAMILIES:
        raise UnknownNameError.of("family of official checkpoints", family, FAMILIES)
    build, separator, landmarks = FAMILIES[family]
    tensors = collect(family, state_dict, prefix, separator)
    options = {name: plain(value) for name, value in config.items()}
    return build(tensors, options, _prefix_hint(tensors, landmarks))


def _prefix_hint(tensors: Tensors, landmarks: Landmarks) -> str:
    """What to say when the layer lies deeper in the checkpoint, at the first place it is found."""
    for names in landmarks:
        prefixes = [n.removesuffix(names[0]) for n in tensors if n.endswith(names[0])]
        for prefix in prefixes:
            if all(prefix + name in tensors for name in names):
                return f"; pass prefix={prefix!r} if that is the layer meant" if prefix else ""
    return ""
