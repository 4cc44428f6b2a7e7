"""What a wrong call is told."""

from __future__ import annotations

import pytest
import torch

from ssm_kernels import (
    ArgumentError,
    DeviceError,
    DTypeError,
    ShapeError,
    SsmError,
    causal_conv1d,
    selective_scan,
)

b, l, d, n, k = 2, 8, 4, 16, 3


def scan_arguments() -> dict[str, object]:
    return {
        "u": torch.randn(b, l, d),
        "delta": torch.rand(b, l, d),
        "A": -torch.rand(d, n),
        "B": torch.randn(b, l, n),
        "C": torch.randn(b, l, n),
    }


def conv_arguments() -> dict[str, object]:
    return {"x": torch.randn(b, l, d), "weight": torch.randn(d, k)}


PROJECTION = (
    "(b, l, n) = (2, 8, 16), (b, l, g, n) = (2, 8, g, 16) with g dividing d = 4, "
    "or (d, n) = (4, 16)"
)
SCAN_ERRORS = [
    ({"u": torch.zeros(8, 4)}, ShapeError, "u has shape (8, 4), expected 3 axes (b, l, d)"),
    (
        {"delta": torch.zeros(2, 8, 1)},
        ShapeError,
        "delta has shape (2, 8, 1), expected that of u, (b, l, d) = (2, 8, 4)",
    ),
    (
        {"z": torch.zeros(2, 7, 4)},
        ShapeError,
        "z has shape (2, 7, 4), expected that of u, (b, l, d) = (2, 8, 4)",
    ),
    ({"A": torch.zeros(16)}, ShapeError, "A has shape (16,), expected (d, n) = (4, n)"),
    ({"A": torch.zeros(16, 4)}, ShapeError, "A has shape (16, 4), expected (d, n) = (4, n)"),
    ({"B": torch.zeros(2, 7, 16)}, ShapeError, f"B has shape (2, 7, 16), expected {PROJECTION}"),
    ({"B": torch.zeros(16)}, ShapeError, f"B has shape (16,), expected {PROJECTION}"),
    ({"C": torch.zeros(4, 8)}, ShapeError, f"C has shape (4, 8), expected {PROJECTION}"),
    (
        {"C": torch.zeros(2, 8, 3, 16)},
        ShapeError,
        f"C has shape (2, 8, 3, 16), expected {PROJECTION}",
    ),
    (
        {"C": torch.zeros(2, 8, 0, 16)},
        ShapeError,
        f"C has shape (2, 8, 0, 16), expected {PROJECTION}",
    ),
    ({"D": torch.zeros(4, 1)}, ShapeError, "D has shape (4, 1), expected (d,) = (4,)"),
    (
        {"delta_bias": torch.zeros(())},
        ShapeError,
        "delta_bias has shape (), expected (d,) = (4,)",
    ),
    (
        {"initial_state": torch.zeros(1, 4, 16)},
        ShapeError,
        "initial_state has shape (1, 4, 16), expected (b, d, n) = (2, 4, 16)",
    ),
    (
        {"u": torch.zeros(2, 8, 4, dtype=torch.int64)},
        DTypeError,
        "u has dtype torch.int64, expected a floating-point dtype "
        "(float32, float64, bfloat16 or float16)",
    ),
    ({"u": [1.0]}, DTypeError, "u is a list, expected a torch.Tensor"),
    ({"B": None}, DTypeError, "B is a NoneType, expected a torch.Tensor"),
    ({"D": 1.0}, DTypeError, "D is a float, expected a torch.Tensor"),
    (
        {"delta": torch.zeros(2, 8, 4, dtype=torch.complex64)},
        DTypeError,
        "delta has dtype torch.complex64, expected a real dtype",
    ),
    (
        {"delta_bias": torch.zeros(4, dtype=torch.complex64)},
        DTypeError,
        "delta_bias has dtype torch.complex64, expected a real dtype",
    ),
    (
        {"B": torch.zeros(2, 8, 16, dtype=torch.complex64)},
        DTypeError,
        "B has dtype torch.complex64, expected a real dtype like A (torch.float32)",
    ),
    (
        {"A": torch.zeros(4, 16, device="meta")},
        DeviceError,
        "A is on meta, expected cpu like u",
    ),
    (
        {"cu_seqlens": torch.tensor([0, 8])},
        ShapeError,
        "batch is 2, expected 1 with cu_seqlens: lay the sequences end to end along the step axis",
    ),
]
CONV_ERRORS = [
    ({"x": torch.zeros(2, 8)}, ShapeError, "x has shape (2, 8), expected 3 axes (b, l, d)"),
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
    (
        {"weight": torch.zeros(3, 4)},
        ShapeError,
        "weight has shape (3, 4), expected (d, k) = (4, k) with k from 1 to 8",
    ),
    ({"bias": torch.zeros(3)}, ShapeError, "bias has shape (3,), expected (d,) = (4,)"),
    (
        {"initial_state": torch.zeros(2, 4, 3)},
        ShapeError,
        "initial_state has shape (2, 4, 3), expected (b, d, k-1) = (2, 4, 2)",
    ),
    ({"activation": "gelu"}, ArgumentError, "activation is 'gelu', expected None or 'silu'"),
    ({"x": 3}, DTypeError, "x is a int, expected a torch.Tensor"),
    (
        {"weight": torch.zeros(4, 3, dtype=torch.complex64)},
        DTypeError,
        "weight has dtype torch.complex64, expected a real dtype",
    ),
    ({"bias": torch.zeros(4, device="meta")}, DeviceError, "bias is on meta, expected cpu like x"),
]
OFFSET_ERRORS = [
    ([0, 8], DTypeError, "cu_seqlens is a list, expected a torch.Tensor"),
    (
        torch.tensor([0.0, 8.0]),
        DTypeError,
        "cu_seqlens has dtype torch.float32, expected int32 or int64",
    ),
    (
        torch.tensor([[0, 8]]),
        ShapeError,
        "cu_seqlens has shape (1, 2), expected (number of sequences + 1,)",
    ),
    (
        torch.tensor([], dtype=torch.int32),
        ShapeError,
        "cu_seqlens has shape (0,), expected (number of sequences + 1,)",
    ),
    (
        torch.tensor([1, 8]),
        ArgumentError,
        "cu_seqlens is [1, 8], expected non-decreasing offsets from 0 to l = 8",
    ),
    (
        torch.tensor([0, 7]),
        ArgumentError,
        "cu_seqlens is [0, 7], expected non-decreasing offsets from 0 to l = 8",
    ),
    (
        torch.tensor([0, 5, 3, 8]),
        ArgumentError,
        "cu_seqlens is [0, 5, 3, 8], expected non-decreasing offsets from 0 to l = 8",
    ),
    (
        torch.tensor([*range(0, 30, 2), 8]),
        ArgumentError,
        "cu_seqlens is [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, ..., 8], "
        "expected non-decreasing offsets from 0 to l = 8",
    ),
]


def message_of(error: type[SsmError], call: object, arguments: dict[str, object]) -> str:
    with pytest.raises(error) as caught:
        call(**arguments)
    assert isinstance(caught.value, SsmError)
    return str(caught.value)


@pytest.mark.parametrize(("wrong", "error", "message"), SCAN_ERRORS, ids=lambda x: None)
def test_selective_scan_messages(
    wrong: dict[str, object], error: type[SsmError], message: str
) -> None:
    arguments = {**scan_arguments(), **wrong}
    assert message_of(error, selective_scan, arguments) == f"selective_scan: {message}"


@pytest.mark.parametrize(("wrong", "error", "message"), CONV_ERRORS, ids=lambda x: None)
def test_causal_conv1d_messages(
    wrong: dict[str, object], error: type[SsmError], message: str
) -> None:
    arguments = {**conv_arguments(), **wrong}
    assert message_of(error, causal_conv1d, arguments) == f"causal_conv1d: {message}"


@pytest.mark.parametrize(("offsets", "error", "message"), OFFSET_ERRORS, ids=lambda x: None)
def test_cu_seqlens_messages(offsets: object, error: type[SsmError], message: str) -> None:
    arguments = {"x": torch.randn(1, l, d), "weight": torch.randn(d, k), "cu_seqlens": offsets}
    assert message_of(error, causal_conv1d, arguments) == f"causal_conv1d: {message}"


def test_packed_initial_state_has_one_row_per_sequence() -> None:
    arguments = {
        "x": torch.randn(1, l, d),
        "weight": torch.randn(d, k),
        "cu_seqlens": torch.tensor([0, 3, 8]),
        "initial_state": torch.zeros(1, d, k - 1),
    }
    assert message_of(ShapeError, causal_conv1d, arguments) == (
        "causal_conv1d: initial_state has shape (1, 4, 2), "
        "expected (number of sequences, d, k-1) = (2, 4, 2)"
    )


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ShapeError, ValueError),
        (ArgumentError, ValueError),
        (DTypeError, TypeError),
        (DeviceError, RuntimeError),
    ],
)
def test_errors_are_also_the_usual_python_ones(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)
    assert issubclass(error, SsmError)
