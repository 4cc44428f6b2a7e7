"""Families of official checkpoints for images, and the one call that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ssm_core.errors import UnknownNameError
from ssm_core.official.options import plain
from ssm_core.official.tensors import StateDict, Tensors, collect
from ssm_vision.models.image_model import ImageModel
from ssm_vision.official import mambavision, vim, vmamba, vmunet
from ssm_vision.official.containers import model_in

Builder: TypeAlias = Callable[[Tensors, Mapping[str, Any]], ImageModel]

#: each `build(tensors, config)` takes the original constructor's arguments as config
FAMILIES: dict[str, Builder] = {
    "mambavision": mambavision.build,
    "vim": vim.build,
    "vmamba": vmamba.build,
    "vmunet": vmunet.build,
}


def from_official(
    family: str, state_dict: StateDict, *, prefix: str = "", **config: Any
) -> ImageModel:
    """Build a model from the tensors of an original implementation, under their names there.

    Sizes that the tensors say are read from them. Nothing is unpickled: read the file first, for
    instance with `safetensors.torch.load_file` or `torch.load(weights_only=True)`.

    Args:
        family: "vim" (hustvl/Vim), "mambavision" (NVlabs/MambaVision), "vmamba" (MzeroMiko/VMamba,
            the vanilla and the s1l*/s2l* models) or "vmunet" (JCruan519/VM-UNet).
        state_dict: name -> tensor or array; or a training script's file, in which that is found
            under "model", "state_dict" or "model_ema", the first of these that is there.
        prefix: take only the tensors whose name begins with it, "encoder." for instance;
            "model_ema." takes that part of a training script's file.
        config: what the tensors do not say, under the names of the original constructor; left out,
            an argument has the original's default value. What the tensors do say is checked.
    Raises:
        UnknownNameError: an unknown family or argument; names the nearest.
        ConfigError: an argument that contradicts the tensors.
        CheckpointError: tensors are missing, left over or misshapen: one line with all of them.

    Cost: that of the model's construction and one copy.
    """
    if family not in FAMILIES:
        raise UnknownNameError.of("family of official checkpoints", family, FAMILIES)
    tensors = collect(family, model_in(state_dict, prefix), prefix, ".")
    return FAMILIES[family](tensors, {name: plain(value) for name, value in config.items()})
