"""Linear layers of inference, against the product in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from traced_calls import Watch

from ssm_kernels import ShapeError, fused_linear, native
from ssm_kernels.fused_linear import LEAST_PRODUCTS, LEAST_WEIGHTS, MAX_INNER

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


def expected(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = (x.double().unsqueeze(-2) * weight.double()).sum(-1)
    return y if bias is None else y + bias.double()


def inputs(
    rows: tuple[int, ...], k: int, m: int, dtype: torch.dtype, with_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    torch.manual_seed(0)
    x, weight = torch.randn(*rows, k, dtype=dtype), torch.randn(m, k, dtype=dtype)
    return x, weight, torch.randn(m, dtype=dtype) if with_bias else None


def assert_close(y: Tensor, arguments: tuple[Tensor, Tensor, Tensor | None]) -> None:
    x = arguments[0]
    assert y.dtype is x.dtype
    assert y.is_contiguous()
    size = (x.shape[-1] + 1) ** 0.5
    tolerance = TOLERANCE[x.dtype] * size
    torch.testing.assert_close(y.double(), expected(*arguments), rtol=tolerance, atol=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.sampled_from(
        [(), (0,), (1,), (2,), (3,), (2, 2), (7,), (3, 1, 5), (17,), (4, 9), (61,), (7, 25)]
    ),
    k=st.integers(0, 90),
    m=st.integers(1, 150),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    with_bias=st.booleans(),
)
def test_few_and_many_rows(
    rows: tuple[int, ...], k: int, m: int, dtype: torch.dtype, with_bias: bool
) -> None:
    arguments = inputs(rows, k, m, dtype, with_bias)
    assert_close(native.linear(*arguments), arguments)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    for rows, k, m in ((1, 3000, 6), (5, 17, 131), (16, 64, 64), (2, 1, 1), (1, 20000, 5)):
        arguments = inputs((rows,), k, m, dtype, True)
        assert_close(native.linear(*arguments), arguments)
    for rows, k, m in ((17, 64, 64), (19, 3, 1), (50, 33, 131), (30, 100, 16)):
        arguments = inputs((rows,), k, m, dtype, True)
        assert_close(native.linear(*arguments), arguments)


@pytest.mark.parametrize("m", [32, 64, 200])
def test_threads_change_no_bit(m: int) -> None:
    x, weight, bias = inputs((157,), 40, m, torch.float32, True)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(native.linear(x, weight, bias))
    torch.set_num_threads(before)
    assert all(torch.equal(y, found[0]) for y in found[1:])


@torch.no_grad()
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("rows", [(), (1,), (3, 5), (16,), (3, 61)])
def test_what_layers_call(rows: tuple[int, ...], with_bias: bool) -> None:
    arguments = inputs(rows, 161, 301, torch.float32, with_bias)
    y = fused_linear(*arguments)
    assert y is not None
    assert_close(y, arguments)


@torch.no_grad()
def test_strided_and_empty_inputs() -> None:
    x, weight, _ = inputs((300, 2), 200, 200, torch.float32, False)
    for part in (x[:4, 0], x[::2, 1], x.transpose(0, 1), x[:0]):
        y = fused_linear(part, weight)
        assert y is not None
        assert_close(y, (part, weight, None))


@torch.no_grad()
def test_extreme_numbers() -> None:
    weight = torch.ones(256, 130)
    weight[3, 129] = torch.inf
    x = torch.full((1, 130), 1e37)
    x[0, 5] = 0.0
    y = fused_linear(x, weight)
    assert y is not None
    assert y.isposinf().all()  # 129e37 is beyond float32
    assert fused_linear(x / 1e3, weight)[0, 0] == pytest.approx(1.29e36)
    x[0, 7] = torch.nan
    y = fused_linear(x, weight)
    assert y is not None
    assert y.isnan().all()


def test_where_it_does_not_run() -> None:
    x, weight, bias = inputs((2,), 128, LEAST_WEIGHTS // 128, torch.float32, True)
    assert fused_linear(x, weight, bias) is None  # gradients enabled
    many = x.new_zeros(LEAST_PRODUCTS // weight.numel(), 128)
    deep = x.new_zeros(300, MAX_INNER + 1), x.new_zeros(300, MAX_INNER + 1)
    with torch.no_grad():
        assert fused_linear(x, weight, bias) is not None
        assert fused_linear(many, weight, bias) is not None
        assert fused_linear(many.double(), weight.double()) is not None
        assert fused_linear(many[:-1], weight, bias) is None
        assert fused_linear(*deep) is None
        assert fused_linear(deep[0][:16], deep[1]) is not None
        assert fused_linear(x, weight[1:], bias) is None
        assert fused_linear(x, weight.t().contiguous().t(), bias) is None
        assert fused_linear(x.bfloat16(), weight.bfloat16()) is None
        assert fused_linear(x, weight.double()) is None
        assert fused_linear(x.to("meta"), weight.to("meta")) is None
        with Watch():
            assert fused_linear(x, weight, bias) is None
        with torch.autocast("cpu"):
            assert fused_linear(x, weight, bias) is None
        with pytest.raises(ShapeError, match="weight has shape"):
            fused_linear(x[:, 1:], weight)
        with pytest.raises(ShapeError, match="bias has shape"):
            fused_linear(x, weight, bias[1:])


@torch.no_grad()
def test_many_rows_are_left_to_torch_where_registers_are_few(isa: str) -> None:
    x, weight, _ = inputs((300,), 200, 200, torch.float32, False)
    assert (fused_linear(x, weight) is not None) == (isa in ("avx2", "avx512"))
    assert fused_linear(x[:1], weight) is not None
