"""What every layer says of arguments that do not fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from protocol_cases import (
    D_MODEL,
    each_causal,
    each_layer,
    each_not_causal,
)

from ssm_core.layers.protocol import CausalityError, SequenceLayer, StateError
from ssm_kernels.errors import ShapeError, SsmError


@each_not_causal
def test_layer_that_is_not_causal_has_no_state(make: Callable[[], SequenceLayer]) -> None:
    layer = make()
    x = torch.zeros(1, 3, D_MODEL)
    with pytest.raises(CausalityError, match="step needs a causal layer, but this one reads later"):
        layer.step(x[:, 0], None)
    with pytest.raises(CausalityError, match=f"{type(layer).__name__}: initial_state needs"):
        layer.initial_state(1)
    with pytest.raises(CausalityError, match="a state needs a causal layer"):
        layer(x, return_state=True)
    with pytest.raises(SsmError, match="a state needs a causal layer"):
        layer(x, state=(torch.zeros(1),))


@each_layer
@pytest.mark.parametrize("shape", [(2, 3, D_MODEL + 1), (3, D_MODEL), (1, 2, 3, D_MODEL)])
def test_wrong_input_shape(make: Callable[[], SequenceLayer], shape: tuple[int, ...]) -> None:
    layer = make()
    with pytest.raises(ShapeError) as caught:
        layer(torch.zeros(shape))
    assert str(caught.value) == (
        f"{type(layer).__name__}: x has shape {shape}, expected (b, l, d) = (b, l, {D_MODEL})"
    )


@each_causal
@pytest.mark.parametrize("shape", [(2, D_MODEL + 1), (2, 1, D_MODEL)])
def test_wrong_step_shape(make: Callable[[], SequenceLayer], shape: tuple[int, ...]) -> None:
    layer = make()
    with pytest.raises(ShapeError) as caught:
        layer.step(torch.zeros(shape), layer.initial_state(2))
    assert str(caught.value) == (
        f"{type(layer).__name__}.step: x_t has shape {shape}, expected (b, d) = (b, {D_MODEL}); "
        "pass a whole sequence to the layer itself"
    )


@each_causal
def test_state_of_another_batch_or_layer(make: Callable[[], SequenceLayer]) -> None:
    layer = make()
    x = torch.zeros(2, 1, D_MODEL)
    with pytest.raises(StateError, match=r"for a batch of 2, expected 2 as its first axis"):
        layer(x, state=layer.initial_state(3))
    with pytest.raises(StateError, match=r"is a dict, expected \w+; start from initial_state"):
        layer(x, state={})


def test_base_class_names_what_is_missing() -> None:
    class Unfinished(SequenceLayer):
        d_model = D_MODEL

    layer = Unfinished()
    with pytest.raises(NotImplementedError, match="Unfinished does not implement mix"):
        layer(torch.zeros(1, 1, D_MODEL))
    with pytest.raises(NotImplementedError, match="Unfinished does not implement initial_state"):
        layer.initial_state(1)
