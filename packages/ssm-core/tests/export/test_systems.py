"""Real systems compute what the complex ones do that they are made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_core.export.real_form import RealKernel, RealS5
from ssm_core.export.systems import System, Systems, diagonal_system, linear_systems
from ssm_core.layers.s4 import S4, S4Config
from ssm_core.layers.s5 import S5

H, B, L, N, INPUTS, OUTPUTS = 3, 2, 6, 4, 2, 5


def complex_numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128) / 2


@pytest.mark.parametrize("l", [0, 1, L])
@pytest.mark.parametrize("reverse", [False, True])
def test_both_directions_from_a_state(l: int, reverse: bool) -> None:
    A, Bs, C = complex_numbers(H, N), complex_numbers(H, INPUTS, N), complex_numbers(H, N, OUTPUTS)
    u = torch.randn(B, l, H, INPUTS, dtype=torch.float64)
    x = start = complex_numbers(B, H, N)
    expected = u.new_zeros(B, l, H, OUTPUTS)
    for t in reversed(range(l)) if reverse else range(l):
        x = A * x + torch.einsum("bhi,hin->bhn", u[:, t] + 0j, Bs)
        expected[:, t] = torch.einsum("bhn,hno->bho", x, C).real
    y, after = Systems(diagonal_system(A, Bs, C))(u, torch.view_as_real(start), reverse)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.view_as_complex(after.contiguous()), x)


@pytest.mark.parametrize("low_rank", [False, True])
def test_an_operator_that_compilers_can_trace(low_rank: bool) -> None:
    system = diagonal_system(
        complex_numbers(H, N), complex_numbers(H, INPUTS, N), complex_numbers(H, N, OUTPUTS)
    )
    if low_rank:
        W, U = (torch.randn(H, *shape).double() for shape in ((2 * N, 1), (1, 2 * N)))
        system = system._replace(W=W, U=U)
    u, state = torch.randn(H, B, L, INPUTS).double(), torch.randn(H, B, 2 * N).double()
    torch.library.opcheck(linear_systems, (u, state, *system))


def test_the_low_rank_part_is_that_of_the_dense_matrix() -> None:
    """x A with A made by advancing the unit vectors."""
    W, U = torch.randn(1, 4, 1).double(), torch.randn(1, 1, 4).double()
    decay, turn = torch.randn(2, 1, 1, 4).double().unbind()
    nothing = torch.zeros(1, 1, 4).double()
    system = Systems(System(decay, turn, nothing, nothing.mT, W, U))
    swapped = torch.eye(4).double().roll(2, 0)
    A = torch.diag(decay[0, 0]) + swapped * turn[0, 0] - W[0] @ U[0]
    x = torch.randn(7, 1, 4).double()
    pairs = x.unflatten(2, (2, 2)).transpose(2, 3)
    _, after = system(torch.zeros(7, 1, 1, 1).double(), pairs)
    torch.testing.assert_close(after.transpose(2, 3).flatten(1), x[:, 0] @ A)


def test_packed_sequences_are_refused() -> None:
    x, offsets = torch.randn(1, 4, 8), torch.tensor([0, 1, 4])
    with pytest.raises(ConfigError, match="packed sequences"):
        RealS5(S5(8))(x, cu_seqlens=offsets)
    with pytest.raises(ConfigError, match="packed sequences"):
        RealKernel(S4(8, S4Config(d_state=4)).kernel).scan(x, None, offsets)
