"""Put the tensors of a checkpoint into a layer made for them."""

from __future__ import annotations

from typing import TypeVar

from ssm_core.errors import CheckpointError
from ssm_core.layers.protocol import SequenceLayer
from ssm_core.official.tensors import Tensors

Layer = TypeVar("Layer", bound=SequenceLayer)


def filled(owner: str, layer: Layer, tensors: Tensors) -> Layer:
    """Return the layer with copies of the tensors, in their types and on their device.

    Raises:
        CheckpointError: a type that the layer cannot have; names or shapes that are not the layer's
            (then the layouts and the layer disagree).
    """
    layer.to(next(iter(tensors.values())).device)
    for name, own in [*layer.named_parameters(), *layer.named_buffers()]:
        value = tensors.get(name)
        if value is None:  # load_state_dict says so
            continue
        if value.is_floating_point() != own.is_floating_point() or value.is_complex():
            raise CheckpointError(
                f"{owner}: {name} is {value.dtype}, expected {own.dtype} or alike"
            )
        if own.is_floating_point():
            own.data = own.data.to(value.dtype)  # in place: the marks for optimizers stay
    try:
        layer.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{owner}: {reason}") from error
    return layer
