"""The inner part of a Mamba mixer in one kernel, against the operators it is made of in float64."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from traced_calls import Watch

from ssm_kernels import (
    ArgumentError,
    MambaParameters,
    ShapeError,
    backends,
    causal_conv1d_reference,
    fused_mamba_directions,
    native,
    selective_scan_reference,
)

TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}


@dataclass(frozen=True)
class Case:
    b: int = 2
    l: int = 37
    d: int = 21
    n: int = 5
    k: int = 4
    rank: int = 3
    reverse: tuple[bool, ...] = (False, True)
    optional: bool = True
    factor: float = 0.5
    seed: int = 0

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, list[MambaParameters]]:
        torch.manual_seed(self.seed)
        x, z = torch.randn(self.b, self.l, 2 * self.d, dtype=dtype).chunk(2, dim=-1)
        return x, z, [self.parameters(dtype) for _ in self.reverse]

    def parameters(self, dtype: torch.dtype) -> MambaParameters:
        d, n, k, rank = self.d, self.n, self.k, self.rank

        def new(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(shape, dtype=dtype)

        return MambaParameters(
            new(d, 1, k, scale=k**-0.5),
            new(d) if self.optional else None,
            new(rank + 2 * n, d, scale=d**-0.5),
            new(d, rank, scale=max(rank, 1) ** -0.5),
            new(d) if self.optional else None,
            new(d, n),
            new(d) if self.optional else None,
        )


def expected(x: Tensor, z: Tensor, parameters: list[MambaParameters], case: Case) -> Tensor:
    """From the references, one direction after the other, in float64."""
    x, z = x.double(), z.double()
    total = torch.zeros_like(x)
    for own, reverse in zip(parameters, case.reverse, strict=True):
        weight, bias, x_proj, dt_proj, dt_bias, A_log, D = (
            p if p is None else p.double() for p in own
        )
        u = causal_conv1d_reference(x, weight.squeeze(1), bias, "silu", reverse=reverse)
        dt, B, C = F.linear(u, x_proj).split([case.rank, case.n, case.n], dim=-1)
        delta = F.linear(dt, dt_proj)
        total += selective_scan_reference(
            u, delta, -A_log.exp(), B, C, D, z, dt_bias, True, reverse=reverse
        )
    return case.factor * total


def assert_right(case: Case, dtype: torch.dtype) -> None:
    x, z, parameters = case.tensors(dtype)
    with torch.no_grad():
        y = fused_mamba_directions(x, z, parameters, case.reverse, case.factor)
        assert y is not None
        right = expected(x, z, parameters, case)
    assert y.shape == x.shape
    assert y.dtype is dtype
    slack = TOLERANCE[dtype] * right.abs().max().item() if right.numel() else 0.0
    torch.testing.assert_close(y.double(), right, rtol=0.0, atol=slack)


@settings(max_examples=60, deadline=None)
@given(
    case=st.builds(
        Case,
        b=st.integers(0, 3),
        l=st.one_of(st.integers(0, 9), st.integers(20, 100)),
        d=st.one_of(st.integers(1, 9), st.integers(15, 80)),
        n=st.integers(1, 18),
        k=st.integers(1, 8),
        rank=st.integers(1, 9),
        reverse=st.lists(st.booleans(), min_size=1, max_size=4).map(tuple),
        optional=st.booleans(),
        factor=st.sampled_from([1.0, 0.5, -3.0]),
        seed=st.integers(0, 99),
    ),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_it_is_the_operators_it_is_made_of(case: Case, dtype: torch.dtype) -> None:
    assert_right(case, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    for d, rank, n in ((1, 1, 1), (17, 3, 16), (192, 12, 16), (70, 33, 20)):
        assert_right(Case(b=1, l=53, d=d, rank=rank, n=n), dtype)


@pytest.mark.parametrize("reverse", [(False,), (False, True), (True, False, True)])
def test_threads_and_strides_change_no_bit(reverse: tuple[bool, ...]) -> None:
    """Whether a thread takes whole sequences (they divide by the threads) or parts of them."""
    case = Case(l=130, d=70, reverse=reverse)
    x, z, parameters = case.tensors(torch.float32)
    found = []
    before = torch.get_num_threads()
    with torch.no_grad():
        for threads in (1, 3, 5):
            torch.set_num_threads(threads)
            for inputs in ((x, z), (x.contiguous(), z.mT.contiguous().mT)):
                found.append(fused_mamba_directions(*inputs, parameters, case.reverse))
    torch.set_num_threads(before)
    for y in found[1:]:
        assert torch.equal(y, found[0])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_are_worked_on_in_parts(threads: int) -> None:
    """A sequence of these takes 2.5 MB, so that no part has more than three, or one per thread."""
    case = Case(b=8, l=300, d=340, reverse=(False, True))
    x, z, parameters = case.tensors(torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with torch.no_grad():
        y = fused_mamba_directions(x, z, parameters, case.reverse)
        alone = [
            fused_mamba_directions(x[i : i + 1], z[i : i + 1], parameters, case.reverse)
            for i in range(8)
        ]
    torch.set_num_threads(before)
    assert y is not None
    assert torch.equal(y, torch.cat(alone))


def test_parameters_are_read_anew_in_every_call() -> None:
    case = Case()
    x, z, parameters = case.tensors(torch.float64)
    with torch.no_grad():
        fused_mamba_directions(x, z, parameters, case.reverse, case.factor)
        for own in parameters:
            for tensor in own:
                tensor.data.mul_(0.5)
        y = fused_mamba_directions(x, z, parameters, case.reverse, case.factor)
        torch.testing.assert_close(y, expected(x, z, parameters, case))


def test_strided_parameters_are_right() -> None:
    case = Case()
    x, z, parameters = case.tensors(torch.float64)
    strided = [
        MambaParameters(*(None if p is None else p.mT.contiguous().mT for p in own))
        if own.conv_bias is None
        else own._replace(A_log=own.A_log.mT.contiguous().mT, D=own.D.repeat_interleave(2)[::2])
        for own in parameters
    ]
    with torch.no_grad():
        y = fused_mamba_directions(x, z, strided, case.reverse, case.factor)
    torch.testing.assert_close(y, expected(x, z, parameters, case))


# --- where it does not run ------------------------------------------------------------------------


def call(x: Tensor, z: Tensor, parameters: list[MambaParameters]) -> Tensor | None:
    return fused_mamba_directions(x, z, parameters, (False, True))


def test_it_leaves_gradients_to_the_operators() -> None:
    assert call(*Case().tensors(torch.float32)) is None
    with torch.no_grad():
        assert call(*Case().tensors(torch.float32)) is not None


@torch.no_grad()
def test_it_runs_for_one_wide_type_only() -> None:
    x, z, parameters = Case().tensors(torch.float32)
    assert call(x.bfloat16(), z, parameters) is None
    assert call(x, z.double(), parameters) is None
    parameters[1] = parameters[1]._replace(D=torch.ones(21, dtype=torch.float64))
    assert call(x, z, parameters) is None
    assert call(*Case().tensors(torch.bfloat16)) is None


@torch.no_grad()
def test_it_does_not_hide_from_what_watches() -> None:
    x, z, parameters = Case().tensors(torch.float32)
    with Watch():
        assert call(x, z, parameters) is None
    with torch.autocast("cpu"):
        assert call(x, z, parameters) is None
    with torch.device("meta"):
        assert call(x.to("meta"), z.to("meta"), parameters) is None

    class Other(Tensor):
        pass

    assert call(x.as_subclass(Other), z, parameters) is None
    seen: list[Tensor | None] = []
    torch.func.vmap(lambda one: (seen.append(call(one, z, parameters)), one)[1])(x.unsqueeze(0))
    assert seen == [None]


@torch.no_grad()
def test_another_backend_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "reference")
    assert call(*Case().tensors(torch.float32)) is None
    backends._environment_backend.cache_clear()
    monkeypatch.delenv(backends.ENVIRONMENT_VARIABLE)
    monkeypatch.setattr(native, "has_fused_kernels", lambda: False)
    assert call(*Case().tensors(torch.float32)) is None


@torch.no_grad()
def test_what_does_not_fit_is_named() -> None:
    x, z, parameters = Case().tensors(torch.float32)
    with pytest.raises(ShapeError, match=r"x has shape .*, expected 3 axes \(b, l, d\)"):
        call(x[0], z, parameters)
    with pytest.raises(ShapeError, match="z has shape"):
        call(x, z[:, :5], parameters)
    with pytest.raises(ArgumentError, match="parameters of 1 directions and 2 entries of reverse"):
        call(x, z, parameters[:1])
    with pytest.raises(ArgumentError, match="1 to 4"):
        fused_mamba_directions(x, z, [parameters[0]] * 5, [False] * 5)
    for name, tensor in zip(MambaParameters._fields, parameters[1], strict=True):
        wrong = parameters[1]._replace(**{name: tensor.repeat(2, *[1] * (tensor.dim() - 1))})
        with pytest.raises(ShapeError, match=f"{name} has shape"):
            call(x, z, [parameters[0], wrong])
    wide = parameters[0]._replace(conv_weight=torch.zeros(21, 1, 9))
    with pytest.raises(ShapeError, match="k from 1 to 8"):
        call(x, z, [wide, wide])
