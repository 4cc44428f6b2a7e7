"""Initial values of S5: names and shapes, the spectrum, the statistics of what is drawn."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ssm_core.hippo import legs, legs_matrices
from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config
from ssm_core.layers.s5_init import basis_of_block, initial_B, initial_C, lecun_normal

EXACT = {"rtol": 1e-6, "atol": 1e-6}


def as_complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.detach()).to(torch.complex128)


def bases(config: S5Config) -> Tensor:
    """V of all blocks (d_state, p)."""
    V = basis_of_block(config.d_state // config.blocks, config.conj_sym).V
    return torch.block_diag(*[V] * config.blocks)


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({}, {"C": (5, 6, 2), "out2.weight": (5, 5), "out2.bias": (5,)}),
        ({"activation": None, "bidirectional": True}, {"C1": (5, 6, 2), "C2": (5, 6, 2)}),
        ({"activation": "gelu", "C_init": "complex_normal"}, {"C": (5, 6, 2)}),
        (
            {"activation": None, "C_init": "complex_normal", "bidirectional": True},
            {"C": (5, 12, 2)},
        ),
        (
            {"activation": "full_glu", "C_init": "lecun_normal"},
            {"C": (5, 6, 2)}
            | {
                f"out{i}.{name}": s
                for i in (1, 2)
                for name, s in (("weight", (5, 5)), ("bias", (5,)))
            },
        ),
    ],
)
def test_names_and_shapes_are_the_official_ones(
    options: dict[str, object], own: dict[str, tuple[int, ...]]
) -> None:
    layer = S5(5, S5Config(d_state=12, blocks=3, **options))  # type: ignore[arg-type]
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    common = {"Lambda_re": (6,), "Lambda_im": (6,), "B": (6, 5, 2), "D": (5,), "log_step": (6, 1)}
    assert shapes == common | own
    assert {p.dtype for p in layer.parameters()} == {torch.float32}


@pytest.mark.parametrize("conj_sym", [True, False])
@pytest.mark.parametrize("blocks", [1, 3])
def test_eigenvalues_are_those_of_legs_block_by_block(conj_sym: bool, blocks: int) -> None:
    layer = S5(4, S5Config(8 * blocks, blocks, conj_sym))
    frequencies = legs(8).Lambda.imag
    if not conj_sym:
        frequencies = torch.cat([frequencies, -frequencies.flip(0)])
    torch.testing.assert_close(
        layer.Lambda_im.detach().double(), frequencies.repeat(blocks), **EXACT
    )
    assert torch.equal(layer.Lambda_re.detach(), torch.full((len(frequencies) * blocks,), -0.5))


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_whole_basis_makes_the_normal_part_of_legs_diagonal(n: int) -> None:
    A, _ = legs_matrices(n)
    P = torch.sqrt(torch.arange(n, dtype=torch.float64) + 0.5)
    Lambda, V = basis_of_block(n, conj_sym=False)
    rebuilt = V @ torch.diag(Lambda) @ V.conj().T
    torch.testing.assert_close(rebuilt, A + torch.outer(P, P) + 0j, rtol=1e-10, atol=1e-10)
    assert (Lambda.imag.diff() > 0).all()


@pytest.mark.parametrize(("blocks", "conj_sym"), [(1, True), (4, True), (1, False), (4, False)])
def test_B_is_a_real_matrix_of_all_states_in_the_basis(blocks: int, conj_sym: bool) -> None:
    config = S5Config(32, blocks, conj_sym)
    B = bases(config) @ as_complex(S5(2000, config).B)
    if conj_sym:  # the other half is the conjugate
        B = 2 * B.real + 0j
    assert B.imag.abs().max() < 1e-5
    assert B.real.std().item() == pytest.approx(32**-0.5, rel=0.02)
    assert B.real.abs().max() < 2.001 / 0.8796 * 32**-0.5  # cut at two deviations
    assert B.real.mean().abs() < 0.01 * 32**-0.5 * 4


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("init", "std"), [("trunc_standard_normal", 32**-0.5), ("lecun_normal", (32 * 1500) ** -0.5)]
)
def test_C_is_drawn_for_all_states(init: str, std: float, bidirectional: bool, blocks: int) -> None:
    config = S5Config(32, blocks, False, bidirectional=bidirectional, C_init=init)  # type: ignore[arg-type]
    layer = S5(1500, config)
    matrices = [layer.C1, layer.C2] if bidirectional else [layer.C]
    drawn = [as_complex(C) @ bases(config).conj().T for C in matrices]  # C~ V^* = C'
    for C in drawn:
        for part in (C.real, C.imag):
            assert part.std().item() == pytest.approx(std, rel=0.02)
            assert part.abs().max() < 2.001 / 0.8796 * std
    assert all((a - b).abs().max() > std for a, b in pairwise(drawn))


@pytest.mark.parametrize("blocks", [1, 3])
def test_half_of_the_states_are_those_of_the_whole_basis(blocks: int) -> None:
    """The same draws in bases that differ by phases, and by which states they leave out."""
    values = {}
    for conj_sym in (True, False):
        basis = basis_of_block(8, conj_sym)
        torch.manual_seed(3)
        B = as_complex(initial_B(basis, blocks, 6))
        C = as_complex(initial_C(basis, blocks, 6, "lecun_normal"))
        values[conj_sym] = torch.einsum(
            "hjn,jnu->jnhu", *(x.unflatten(axis, (blocks, -1)) for x, axis in ((C, 1), (B, 0)))
        )
    # what a state reads times what drives it does not depend on its phase
    torch.testing.assert_close(values[True], values[False][:, :4], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_complex_normal_C(bidirectional: bool) -> None:
    config = S5Config(32, 4, bidirectional=bidirectional, C_init="complex_normal")
    C = S5(1500, config).C.detach()
    for part in C.unbind(2):
        assert part.std().item() == pytest.approx(math.sqrt(0.5), rel=0.02)
    assert C.abs().max() > 2.5  # not cut


def test_other_initial_values() -> None:
    layer = S5(2000, S5Config(2048, 512, dt_min=1e-4, dt_max=0.2, activation="full_glu"))
    assert layer.D.std().item() == pytest.approx(1, rel=0.05)
    u = ((layer.log_step.detach().flatten() - math.log(1e-4)) / math.log(2000)).sort().values
    uniform = (torch.arange(1024) + 0.5) / 1024
    assert (u - uniform).abs().max() < 1.63 / 32  # Kolmogorov-Smirnov at 1 %, n = 1024
    for gate in (layer.out1, layer.out2):
        assert gate.weight.std().item() == pytest.approx(2000**-0.5, rel=0.01)
        assert not gate.bias.any()


def test_lecun_normal_is_a_cut_normal_distribution() -> None:
    draw = lecun_normal(100, 1000, fan_in=4).flatten().double()
    assert draw.var().item() == pytest.approx(0.25, rel=0.02)
    # the standard normal distribution between -2 and 2
    inside = [math.erf(t / math.sqrt(2)) / math.erf(math.sqrt(2)) for t in (0.5, 1.0, 1.5)]
    unit = draw.abs() * 2 * 0.87962566103423978
    for t, expected in zip((0.5, 1.0, 1.5), inside, strict=True):
        assert (unit < t).double().mean().item() == pytest.approx(expected, abs=0.006)
    assert unit.max() <= 2.00001
