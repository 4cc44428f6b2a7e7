"""The decode-step operators under torch.compile, torch.export, opcheck and torch.func."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ssm_kernels import ArgumentError, causal_conv1d_update, native, selective_state_update

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason=f"not built: {native.IMPORT_ERROR}")

Arguments = tuple[Tensor, ...]


def step_arguments(b: int = 2, dtype: torch.dtype = torch.float32) -> Arguments:
    """state, x, dt, A, B, C, D, z, dt_bias; activations as strided as in a Mamba block."""
    torch.manual_seed(b)
    d, n = 6, 5
    xz, dBC = torch.randn(b, 2 * d, dtype=dtype), torch.randn(b, 3 + 2 * n, dtype=dtype)
    x, z = xz.chunk(2, dim=-1)
    _, B, C = dBC.split([3, n, n], dim=-1)
    dt = torch.randn(b, d, dtype=dtype)
    A, D, bias = -torch.rand(d, n), torch.randn(d), torch.randn(d)
    return torch.randn(b, d, n), x, dt, A, B, C, D, z, bias


def step(*arguments: Tensor) -> Tensor:
    return selective_state_update(*arguments, True)


def conv_arguments(b: int = 2, dtype: torch.dtype = torch.float32) -> Arguments:
    """x, conv_state, weight, bias, cache_seqlens."""
    torch.manual_seed(b)
    x = torch.randn(b, 12, dtype=dtype)[:, 6:]
    counts = torch.arange(b, dtype=torch.int32)
    return x, torch.randn(b, 6, 4), torch.randn(6, 4), torch.randn(6), counts


def conv(*arguments: Tensor) -> Tensor:
    x, conv_state, weight, bias, *counts = arguments
    return causal_conv1d_update(
        x, conv_state, weight, bias, "silu", cache_seqlens=counts[0] if counts else None
    )


def conv_shifting(b: int = 2, dtype: torch.dtype = torch.float32) -> Arguments:
    return conv_arguments(b, dtype)[:4]


OPERATORS: dict[str, tuple[Callable[..., Arguments], Callable[..., Tensor], int]] = {
    "selective_state_update": (step_arguments, step, 0),
    "causal_conv1d_update ring": (conv_arguments, conv, 1),
    "causal_conv1d_update": (conv_shifting, conv, 1),
}
each_operator = pytest.mark.parametrize("operator", OPERATORS)
each_type = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])


def op_call(operator: str, arguments: Arguments) -> tuple[object, tuple[object, ...]]:
    """Return the registered operator and its arguments."""
    if operator == "selective_state_update":
        return torch.ops.ssm_kernels.selective_state_update.default, (*arguments, True)
    counts = arguments[4] if len(arguments) == 5 else None
    return torch.ops.ssm_kernels.causal_conv1d_update.default, (*arguments[:4], counts, True)


@each_operator
@each_type
def test_opcheck(operator: str, dtype: torch.dtype) -> None:
    op, arguments = op_call(operator, OPERATORS[operator][0](2, dtype))
    result = torch.library.opcheck(op, arguments)
    assert set(result.values()) == {"SUCCESS"}


@each_operator
@torch.no_grad()
def test_the_registered_operator_is_the_eager_call_to_the_bit(operator: str) -> None:
    make, call, at = OPERATORS[operator]
    plain, registered = make(), make()
    op, arguments = op_call(operator, registered)
    version = registered[at]._version
    assert torch.equal(call(*plain), op(*arguments))
    assert torch.equal(plain[at], registered[at])
    assert registered[at]._version > version


@each_operator
@each_type
@pytest.mark.parametrize("dynamic", [False, True])
@torch.no_grad()
def test_compiled_whole(operator: str, dtype: torch.dtype, dynamic: bool) -> None:
    torch.compiler.reset()
    make, call, at = OPERATORS[operator]
    compiled = torch.compile(
        lambda *a: call(*a) + 1, fullgraph=True, dynamic=dynamic, backend="aot_eager"
    )
    for b in (2, 3):
        plain, traced = make(b, dtype), make(b, dtype)
        for _ in range(3):  # the state carries over
            assert torch.equal(compiled(*traced), call(*plain) + 1)
        assert torch.equal(plain[at], traced[at])


@each_operator
@torch.no_grad()
def test_exported(operator: str) -> None:
    make, call, at = OPERATORS[operator]

    class Module(nn.Module):
        def forward(self, *arguments: Tensor) -> Tensor:
            return call(*arguments)

    plain, traced = make(), make()
    program = torch.export.export(Module(), make())
    assert any("ssm_kernels" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(*traced), call(*plain))
    assert torch.equal(plain[at], traced[at])


@each_operator
@torch.no_grad()
def test_vmap_updates_the_state_of_every_entry(operator: str) -> None:
    make, call, at = OPERATORS[operator]
    several = [list(make(2)) for _ in range(3)]
    for i, arguments in enumerate(several):
        arguments[at] = arguments[at] + i
        arguments[0 if at else 1] = torch.randn_like(arguments[0 if at else 1])
    shared = [i not in (at, 0 if at else 1) for i in range(len(several[0]))]
    stacked = [
        several[0][i] if s else torch.stack([a[i] for a in several], dim=1)
        for i, s in enumerate(shared)
    ]
    ys = torch.vmap(call, in_dims=tuple(None if s else 1 for s in shared))(*stacked)
    for i, arguments in enumerate(several):
        assert torch.equal(ys[i], call(*arguments))
        assert torch.equal(stacked[at][:, i], arguments[at])


@each_operator
@torch.no_grad()
def test_vmap_over_one_shared_state_is_refused(operator: str) -> None:
    make, call, at = OPERATORS[operator]
    arguments = list(make())
    before = arguments[at].clone()
    mapped = 0 if at else 1
    arguments[mapped] = torch.stack([arguments[mapped]] * 3)
    in_dims = tuple(0 if i == mapped else None for i in range(len(arguments)))
    with pytest.raises(ArgumentError, match="is updated in place and not mapped"):
        torch.vmap(call, in_dims=in_dims)(*arguments)
    assert torch.equal(arguments[at], before)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # by jvp
@each_operator
def test_derivatives_of_torch_func_are_refused(operator: str) -> None:
    make, call, at = OPERATORS[operator]
    arguments = make()
    x_at = 0 if at else 1

    def of_x(x: Tensor) -> Tensor:
        return call(*arguments[:x_at], x, *arguments[x_at + 1 :]).sum()

    with pytest.raises(ArgumentError, match="x requires grad"):
        torch.func.grad(of_x)(arguments[x_at])
    with pytest.raises(ArgumentError, match="x carries a forward-mode tangent"), torch.no_grad():
        torch.func.jvp(of_x, (arguments[x_at],), (torch.ones_like(arguments[x_at]),))
    with forward_ad.dual_level(), torch.no_grad():
        dual = forward_ad.make_dual(arguments[x_at], torch.ones_like(arguments[x_at]))
        with pytest.raises(ArgumentError, match="x carries a forward-mode tangent"):
            of_x(dual)


@torch.no_grad()
def test_compiled_by_inductor() -> None:
    """A decode loop of both operators, with ordinary operations around and between them."""
    torch.compiler.reset()

    def decode(x: Tensor, conv_state: Tensor, weight: Tensor, *scan: Tensor) -> Tensor:
        state, *rest = scan
        for _ in range(2):
            y = causal_conv1d_update(x * 2, conv_state, weight, None, "silu")
            x = selective_state_update(state, y, *rest, dt_softplus=True) + x
        return x

    def arguments() -> Arguments:
        x, conv_state, weight, *_ = conv_arguments()
        state, _, *rest = step_arguments()
        return x, conv_state, weight, state, *rest

    plain, traced = arguments(), arguments()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = torch.compile(decode, fullgraph=True)(*traced)
    torch.testing.assert_close(got, decode(*plain))
    torch.testing.assert_close(traced[1], plain[1])
    torch.testing.assert_close(traced[3], plain[3])
