"""What a wrong call of a decode-step operator is told."""

from __future__ import annotations

import pytest
import torch

from ssm_kernels import (
    ArgumentError,
    BackendError,
    DeviceError,
    DTypeError,
    ShapeError,
    SsmError,
    causal_conv1d_update,
    selective_state_update,
)

PROJECTION = "(b, n) = (2, 16) or (b, g, n) = (2, g, 16) with g dividing d = 4"
FLOATS = "expected a floating-point dtype (float32, float64, bfloat16 or float16)"


def step_arguments() -> dict[str, object]:
    x, B = torch.randn(2, 4), torch.randn(2, 16)
    return {
        "state": torch.zeros(2, 4, 16),
        "x": x,
        "dt": x,
        "A": -torch.rand(4, 16),
        "B": B,
        "C": B,
    }


def head_arguments() -> dict[str, object]:
    x, B = torch.randn(2, 4, 3), torch.randn(2, 2, 16)
    A = -torch.rand(4, 3, 16)
    return {"state": torch.zeros(2, 4, 3, 16), "x": x, "dt": x, "A": A, "B": B, "C": B}


def conv_arguments() -> dict[str, object]:
    return {
        "x": torch.randn(2, 4),
        "conv_state": torch.zeros(2, 4, 2),
        "weight": torch.randn(4, 3),
    }


STEP_ERRORS = [
    (
        {"state": torch.zeros(2, 4)},
        ShapeError,
        "state has shape (2, 4), expected 3 axes (b, d, n) or 4 (b, h, p, n)",
    ),
    ({"x": torch.zeros(2, 5)}, ShapeError, "x has shape (2, 5), expected (b, d) = (2, 4) to fit"),
    ({"dt": torch.zeros(4)}, ShapeError, "dt has shape (4,), expected (b, d) = (2, 4) to fit"),
    ({"z": torch.zeros(2, 1)}, ShapeError, "z has shape (2, 1), expected (b, d) = (2, 4) to fit"),
    ({"A": torch.zeros(4)}, ShapeError, "A has shape (4,), expected (d, n) = (4, 16) to fit"),
    ({"D": torch.zeros(4, 1)}, ShapeError, "D has shape (4, 1), expected (d,) = (4,) to fit"),
    ({"dt_bias": torch.zeros(())}, ShapeError, "dt_bias has shape (), expected (d,) = (4,) to fit"),
    ({"B": torch.zeros(4, 16)}, ShapeError, f"B has shape (4, 16), expected {PROJECTION}"),
    ({"B": torch.zeros(16)}, ShapeError, f"B has shape (16,), expected {PROJECTION}"),
    ({"C": torch.zeros(2, 3, 16)}, ShapeError, f"C has shape (2, 3, 16), expected {PROJECTION}"),
    ({"C": torch.zeros(2, 0, 16)}, ShapeError, f"C has shape (2, 0, 16), expected {PROJECTION}"),
    ({"C": torch.zeros(1, 2, 16)}, ShapeError, f"C has shape (1, 2, 16), expected {PROJECTION}"),
    ({"x": [1.0]}, DTypeError, "x is a list, expected a torch.Tensor"),
    ({"B": None}, DTypeError, "B is a NoneType, expected a torch.Tensor"),
    (
        {"state": torch.zeros(2, 4, 16, dtype=torch.int32)},
        DTypeError,
        f"state has dtype torch.int32, {FLOATS}",
    ),
    (
        {"x": torch.zeros(2, 4, dtype=torch.complex64)},
        DTypeError,
        "x has dtype torch.complex64, expected a real dtype",
    ),
    (
        {"state": torch.zeros(2, 4, 16, dtype=torch.complex64)},
        DTypeError,
        "state has dtype torch.complex64, expected a real dtype like A (torch.float32)",
    ),
    (
        {"C": torch.zeros(2, 16, dtype=torch.complex64)},
        DTypeError,
        "C has dtype torch.complex64, expected a real dtype like A (torch.float32)",
    ),
    (
        {"A": torch.zeros(4, 16, dtype=torch.complex64)},
        DTypeError,
        "state has dtype torch.float32, expected a complex dtype like A (torch.complex64)",
    ),
    (
        {"D": torch.zeros(4, device="meta")},
        DeviceError,
        "D is on meta, expected cpu like state",
    ),
    ({"backend": "gpu"}, BackendError, "backend is 'gpu', expected one of 'auto', "),
]
HEAD_ERRORS = [
    (
        {"x": torch.zeros(2, 4)},
        ShapeError,
        "x has shape (2, 4), expected (b, h, p) = (2, 4, 3) to fit the state",
    ),
    (
        {"A": torch.zeros(4)},
        ShapeError,
        "A has shape (4,), expected (h, p, n) = (4, 3, 16) to fit the state",
    ),
    (
        {"D": torch.zeros(4)},
        ShapeError,
        "D has shape (4,), expected (h, p) = (4, 3) to fit the state",
    ),
    (
        {"B": torch.zeros(2, 3, 16)},
        ShapeError,
        "B has shape (2, 3, 16), expected (b, n) = (2, 16) or (b, g, n) = (2, g, 16) "
        "with g dividing h = 4",
    ),
]
STATE = "conv_state has shape {}, expected (b, d, s) = (2, 4, s) with s at least k-1 = 2"
CONV_ERRORS = [
    ({"x": torch.zeros(4)}, ShapeError, "x has shape (4,), expected 2 axes (b, d) or 3 (b, l, d)"),
    (
        {"weight": torch.zeros(4, 1, 3)},
        ShapeError,
        "weight has shape (4, 1, 3), expected (d, k) = (4, k) with k from 1 to 8",
    ),
    (
        {"weight": torch.zeros(4, 9)},
        ShapeError,
        "weight has shape (4, 9), expected (d, k) = (4, k) with k from 1 to 8",
    ),
    ({"conv_state": torch.zeros(2, 4, 1)}, ShapeError, STATE.format((2, 4, 1))),
    ({"conv_state": torch.zeros(2, 3, 2)}, ShapeError, STATE.format((2, 3, 2))),
    ({"conv_state": torch.zeros(2, 8)}, ShapeError, STATE.format((2, 8))),
    ({"bias": torch.zeros(3)}, ShapeError, "bias has shape (3,), expected (d,) = (4,)"),
    ({"activation": "gelu"}, ArgumentError, "activation is 'gelu', expected None or 'silu'"),
    ({"conv_state": None}, DTypeError, "conv_state is a NoneType, expected a torch.Tensor"),
    (
        {"conv_state": torch.zeros(2, 4, 2, dtype=torch.int64)},
        DTypeError,
        f"conv_state has dtype torch.int64, {FLOATS}",
    ),
    ({"bias": torch.zeros(4, device="meta")}, DeviceError, "bias is on meta, expected cpu like x"),
    ({"cache_seqlens": [0, 1]}, DTypeError, "cache_seqlens is a list, expected a torch.Tensor"),
    (
        {"cache_seqlens": torch.zeros(2)},
        DTypeError,
        "cache_seqlens has dtype torch.float32, expected int32 or int64",
    ),
    (
        {"cache_seqlens": torch.zeros(3, dtype=torch.int32)},
        ShapeError,
        "cache_seqlens has shape (3,), expected (b,) = (2,)",
    ),
    (
        {"cache_seqlens": torch.zeros(2, dtype=torch.int32, device="meta")},
        DeviceError,
        "cache_seqlens is on meta, expected cpu like x",
    ),
]


def message_of(error: type[SsmError], call: object, arguments: dict[str, object]) -> str:
    with pytest.raises(error) as caught:
        call(**arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("wrong", "error", "message"), STEP_ERRORS, ids=lambda x: None)
def test_messages_without_heads(
    wrong: dict[str, object], error: type[SsmError], message: str
) -> None:
    told = message_of(error, selective_state_update, {**step_arguments(), **wrong})
    assert told.startswith(f"selective_state_update: {message}")


@pytest.mark.parametrize(("wrong", "error", "message"), HEAD_ERRORS, ids=lambda x: None)
def test_messages_with_heads(wrong: dict[str, object], error: type[SsmError], message: str) -> None:
    told = message_of(error, selective_state_update, {**head_arguments(), **wrong})
    assert told == f"selective_state_update: {message}"


@pytest.mark.parametrize(("wrong", "error", "message"), CONV_ERRORS, ids=lambda x: None)
def test_messages_of_the_convolution(
    wrong: dict[str, object], error: type[SsmError], message: str
) -> None:
    told = message_of(error, causal_conv1d_update, {**conv_arguments(), **wrong})
    assert told == f"causal_conv1d_update: {message}"


def test_the_arguments_above_are_right_when_nothing_is_wrong() -> None:
    assert selective_state_update(**step_arguments()).shape == (2, 4)
    assert selective_state_update(**head_arguments()).shape == (2, 4, 3)
    assert causal_conv1d_update(**conv_arguments()).shape == (2, 4)
