"""Every way of a call through PyTorch: the same bits, and clear refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import conv_cases
import diagonal_cases
import pytest
import scan_cases
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import DTYPES, examples
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from traced_calls import CALLS, Call, Watch, conv_call, diagonal_call, every_call, scan_call

from ssm_kernels import ArgumentError, BackendError, native
from ssm_kernels.library import Kernel, Operator

OPS = torch.ops.ssm_kernels


def assert_same_bits(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype is value.dtype, name
        assert torch.equal(got[name], value), name


def by_autograd(call: Call) -> dict[str, Tensor]:
    results = dict(zip(("y", "state"), call(), strict=True))
    return {**results, **call.gradients(call.loss)}


def by_dispatcher(call: Call) -> dict[str, Tensor]:
    with Watch() as watch:
        found = by_autograd(call)
    name = call.operator.__name__
    assert watch.seen == {f"{name}_forward", f"{name}_backward"}
    return found


def by_torch_func(call: Call) -> dict[str, Tensor]:
    (y, state), pull_back = torch.func.vjp(lambda tensors: call(**tensors), call.tensors)
    leaves = y.detach().requires_grad_(), state.detach().requires_grad_()
    cotangents = torch.autograd.grad(replace(call, operator=lambda **_: leaves).loss({}), leaves)
    (gradients,) = pull_back(cotangents)
    return {"y": y, "state": state, **gradients}


WAYS = pytest.mark.parametrize("way", [by_dispatcher, by_torch_func])


@WAYS
@every_call
def test_every_way_gives_the_same_bits(
    call: Call, way: Callable[[Call], dict[str, Tensor]]
) -> None:
    assert_same_bits(way(call), by_autograd(call))


@WAYS
@examples
@given(
    case=scan_cases.cases()
    | scan_cases.cases(is_complex=True)
    | conv_cases.cases
    | diagonal_cases.cases,
    dtype=st.sampled_from(DTYPES),
)
def test_every_way_gives_the_same_bits_whatever_the_arguments(
    way: Callable[[Call], dict[str, Tensor]],
    case: scan_cases.Case | conv_cases.Case | diagonal_cases.Case,
    dtype: torch.dtype,
) -> None:
    if isinstance(case, scan_cases.Case):
        call = scan_call(case, dtype)
    elif isinstance(case, conv_cases.Case):
        call = conv_call(case, dtype)
    else:
        call = diagonal_call(case, dtype)
    assert_same_bits(way(call), by_autograd(call))


def operator_arguments(call: Call) -> tuple[str, list[object]]:
    """The name of the registered operator and what the call hands to it, leaves that need grad."""
    taken: list[tuple[str, list[object]]] = []

    class Take(Watch):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func.namespace == "ssm_kernels":
                taken.append((func._opname, list(args)))
            return super().__torch_dispatch__(func, types, args, kwargs)

    with Take():
        call.gradients(call.loss)
    return taken


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own
@every_call
def test_opcheck(call: Call) -> None:
    """Schema, fake kernel, autograd and tracing with dynamic shapes, forward and backward."""
    (forward, arguments), (backward, backward_arguments) = operator_arguments(call)
    leaves = [
        x.detach().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in arguments
    ]
    passed = torch.library.opcheck(getattr(OPS, forward).default, tuple(leaves))
    assert set(passed.values()) == {"SUCCESS"}
    plain = [x.detach() if isinstance(x, Tensor) else x for x in backward_arguments]
    passed = torch.library.opcheck(getattr(OPS, backward).default, tuple(plain))
    assert set(passed.values()) == {"SUCCESS"}


@every_call
def test_gradcheck_of_the_registered_operator(call: Call) -> None:
    names = list(call.tensors)
    with Watch():
        assert torch.autograd.gradcheck(
            lambda *tensors: call(**dict(zip(names, tensors, strict=True))),
            list(call.fresh().values()),
            fast_mode=True,
        )


@every_call
def test_fake_tensors_give_shapes_and_types(call: Call) -> None:
    expected = by_autograd(call)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = replace(call, tensors={k: mode.from_tensor(x) for k, x in call.tensors.items()})
        found = by_autograd(fake)
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert found[name].dtype is value.dtype, name
        assert found[name].stride() == value.stride(), name


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # what torch.func.jvp loads
@every_call
def test_forward_mode_is_refused(call: Call) -> None:
    name, tangent = call.operator.__name__, next(iter(call.tensors.values()))
    first = next(iter(call.tensors))
    message = f"{name}: the native kernel has no forward-mode derivative; .* reverse mode"
    with pytest.raises(BackendError, match=message):
        torch.func.jvp(lambda x: call(**{first: x}), (tangent,), (tangent,))
    with forward_ad.dual_level():
        call()  # no argument has a tangent
        dual = forward_ad.make_dual(tangent, tangent)
        with pytest.raises(BackendError, match=message):
            call(**{first: dual})
        with Watch(), pytest.raises(BackendError, match=message):
            call(**{first: dual})


@pytest.mark.parametrize("watch", [False, True])
@every_call
def test_second_derivatives_are_refused(call: Call, watch: bool) -> None:
    leaves = call.fresh()
    first = next(iter(leaves))
    message = f"{call.operator.__name__}: the gradients .* cannot be differentiated again"

    def penalty() -> Tensor:
        loss = call.loss(leaves)
        (gradient,) = torch.autograd.grad(loss, leaves[first], create_graph=True)
        return gradient.abs().square().sum() + loss

    mode = Watch() if watch else torch.enable_grad()
    with mode, pytest.raises(BackendError, match=message):
        penalty().backward()

    def gradient_norm(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: call.loss({first: x}))(x).abs().square().sum()

    with pytest.raises(BackendError, match=message):
        torch.func.grad(gradient_norm)(call.tensors[first])


def test_the_operator_cannot_be_differentiated_without_its_checkpoints() -> None:
    (name, arguments), _ = operator_arguments(CALLS["scan"])
    leaf = arguments[0].detach().requires_grad_()
    y, _, checkpoints = getattr(OPS, name)(leaf, *arguments[1:-1], False)
    assert checkpoints.shape == (0,)
    with pytest.raises(BackendError, match="ran with save_for_backward=False, expected True"):
        y.sum().backward()


@every_call
def test_activation_checkpointing(call: Call) -> None:
    def recomputed(tensors: dict[str, Tensor]) -> Tensor:
        return checkpoint(call.loss, tensors, use_reentrant=False)

    assert_same_bits(call.gradients(recomputed), call.gradients(call.loss))


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
def test_jit_trace_records_the_kernel() -> None:
    """Without the registered operator the trace would hold results that nobody computes."""
    call = CALLS["conv"]
    x = call.tensors["x"]
    traced = torch.jit.trace(lambda x: call(x=x)[0], (x,), check_trace=False)
    assert torch.equal(traced(2 * x), call(x=2 * x)[0])


def test_operator_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    (name, arguments), _ = operator_arguments(CALLS["conv"])
    monkeypatch.setattr(native, "AVAILABLE", False)
    with pytest.raises(BackendError, match=r"causal_conv1d_forward: .*kernels are not built"):
        getattr(OPS, name)(*arguments)


def test_reload_and_second_import() -> None:
    """The newest import owns the operators, also when the older one is collected later."""
    code = """
import gc, importlib, sys, torch
import ssm_kernels
x, weight = torch.ones(1, 4, 2), torch.ones(2, 2)
def check():
    op = torch.ops.ssm_kernels.causal_conv1d_forward
    y, _ = op(x, weight, None, None, None, False, False, False)
    assert torch.equal(y, ssm_kernels.causal_conv1d(x, weight))
check()
importlib.reload(ssm_kernels.causal_conv1d_autograd)
importlib.reload(ssm_kernels)
check()
for name in [name for name in sys.modules if name.startswith("ssm_kernels")]:
    if name != "ssm_kernels._native":
        del sys.modules[name]
import ssm_kernels
gc.collect()
check()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_is_silent_and_does_not_load_the_compiler() -> None:
    code = (
        "import sys, torch; a = set(sys.modules); import ssm_kernels; print(*set(sys.modules) - a)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    loaded = done.stdout.split()
    assert "ssm_kernels.library" in loaded
    assert not [name for name in loaded if name.startswith(("torch._dynamo", "torch._inductor"))]


@pytest.fixture(scope="module")
def add_in_place() -> Operator:
    """The smallest operator that writes into an argument."""

    def launch(state: Tensor, x: Tensor) -> Tensor:
        return state.add_(x).sum(-1)

    def fake(state: Tensor, x: Tensor) -> Tensor:
        return state.new_empty(state.shape[:-1])

    return Operator(Kernel("test_add_", "(Tensor(a!) state, Tensor x) -> Tensor", launch, fake))


def test_in_place_operator(add_in_place: Operator) -> None:
    passed = torch.library.opcheck(add_in_place.op, (torch.zeros(2, 3), torch.ones(2, 3)))
    assert set(passed.values()) == {"SUCCESS"}
    state = torch.zeros(2, 3)
    assert add_in_place(state, torch.ones(2, 3)).tolist() == [3, 3]
    compiled = torch.compile(add_in_place, fullgraph=True, backend="aot_eager")
    assert compiled(state, torch.ones(2, 3)).tolist() == [6, 6]
    assert state.tolist() == [[2] * 3] * 2


def test_in_place_operator_under_vmap(add_in_place: Operator) -> None:
    state, x = torch.zeros(2, 4, 3), torch.randn(4, 2, 3)
    mapped = torch.func.vmap(add_in_place, in_dims=(1, 0))
    assert torch.allclose(mapped(state, x), x.sum(-1))
    assert torch.equal(state, x.transpose(0, 1))
    with pytest.raises(ArgumentError, match="state is updated in place and not mapped"):
        torch.func.vmap(add_in_place, in_dims=(None, 0))(state[:, 0], x)
