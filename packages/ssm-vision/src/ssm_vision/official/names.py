"""Tensors under the names that our models have, whichever release of the original wrote them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ssm_core.official.tensors import Tensors
from ssm_vision.models.mambavision import MambaVision
from ssm_vision.models.vmamba import VMamba
from ssm_vision.models.vmunet import VMUNet
from ssm_vision.models.vmunet_names import encoder_names
from ssm_vision.official.mambavision import unwrapped
from ssm_vision.official.vmamba_names import in_new_names

#: models whose tensors once had other names, or still have under a wrapper
_RENAMED: dict[type[nn.Module], Callable[[Tensors], Tensors]] = {
    MambaVision: unwrapped,
    VMamba: in_new_names,
    VMUNet: encoder_names,
}
_COUNT = ".num_batches_tracked"


def as_ours(model: nn.Module, tensors: Tensors) -> Tensors:
    """Rename what `model` calls otherwise; everything else keeps its name.

    Counts of batches that older files lack are those of `model`: nothing is computed from them.
    """
    rename = _RENAMED.get(type(model))
    named = dict(tensors) if rename is None else rename(tensors)
    own = model.state_dict()
    return named | {k: v for k, v in own.items() if k.endswith(_COUNT) and k not in named}
