"""States that share their decay: an A expanded along its states gives the bits of its copy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm_kernels import selective_scan
from ssm_kernels.reference import selective_scan_reference

SIZES = st.tuples(*(st.integers(low, high) for low, high in ((0, 2), (0, 70), (1, 40), (1, 40))))


def arguments(sizes: tuple[int, int, int, int], dtype: torch.dtype) -> dict[str, Tensor]:
    b, l, d, n = sizes
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = {"u": draw(b, l, d), "delta": draw(b, l, d), "B": draw(b, l, n), "C": draw(b, l, n)}
    per_channel = {"A": -draw(d, 1).abs(), "D": draw(d), "initial_state": draw(b, d, n)}
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    return {name: x.to(dtype) for name, x in rows.items()} | {
        name: x.to(wide) for name, x in per_channel.items()
    }


def outcome(tensors: dict[str, Tensor], expanded: bool, reverse: bool) -> dict[str, Tensor]:
    leaves = {name: x.clone().requires_grad_() for name, x in tensors.items()}
    A = leaves["A"].expand(-1, tensors["B"].shape[2])
    y, state = selective_scan(
        **leaves | {"A": A if expanded else A.contiguous()},
        delta_softplus=True,
        return_final_state=True,
        reverse=reverse,
        backend="cpu",
    )
    torch.manual_seed(1)
    loss = (y.float() * torch.randn(y.shape)).sum() + (state * torch.randn(state.shape)).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {"y": y.detach(), "state": state.detach()} | dict(zip(leaves, gradients, strict=True))


@settings(max_examples=25, deadline=None)
@given(SIZES, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.booleans())
def test_the_same_bits(sizes: tuple[int, int, int, int], dtype: torch.dtype, reverse: bool) -> None:
    tensors = arguments(sizes, dtype)
    shared, separate = (outcome(tensors, expanded, reverse) for expanded in (True, False))
    for name, value in separate.items():
        assert torch.equal(shared[name], value), name


def test_the_reference_on_every_instruction_set(isa: str) -> None:
    tensors = arguments((2, 100, 19, 37), torch.float64)
    A = tensors.pop("A").expand(-1, 37)
    y = selective_scan(**tensors, A=A, backend="cpu")
    expected = selective_scan_reference(**tensors, A=A)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("l", [1, 64])
def test_a_row_that_differs_is_not_shared(l: int) -> None:
    """Stride 0 along the channels is something else."""
    tensors = arguments((1, l, 8, 4), torch.float64)
    A = -torch.arange(1.0, 5.0, dtype=torch.float64).expand(8, 4)
    tensors["A"] = A
    y = selective_scan(**tensors, backend="cpu")
    torch.testing.assert_close(y, selective_scan_reference(**tensors))
