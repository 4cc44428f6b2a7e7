"""torch.compile and torch.export of the operators: whole graphs, any length, the same results."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import scan_cases
import torch
from kernel_cases import assert_close
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from traced_calls import CALLS, Call, every_call, scan_call

from ssm_kernels import (
    SsmKernelsWarning,
    backends,
    causal_conv1d,
    diagonal_scan,
    native,
    selective_scan,
)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(call: Call, backend: str | Callable[..., object] = "aot_eager") -> Call:
    return replace(call, operator=torch.compile(call.operator, fullgraph=True, backend=backend))


@every_call
def test_one_graph_with_the_same_bits(call: Call) -> None:
    other = compiled(call)
    with torch.no_grad():
        for got, expected in zip(other(), call(), strict=True):
            assert torch.equal(got, expected)
    expected = call.gradients(call.loss)
    for name, got in other.gradients(other.loss).items():
        assert torch.equal(got, expected[name]), name


@pytest.mark.filterwarnings("ignore:Skipping serialization of")  # PyTorch 2.6
@pytest.mark.slow
@pytest.mark.parametrize("name", ["scan", "conv"])
def test_inductor(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way to generated code, which fuses what surrounds the operator."""
    # no graphs of earlier sessions; headers are compiled once for all processes of this one
    own = tmp_path_factory.getbasetemp()
    cache = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    call = CALLS[name]
    loss = torch.compile(call.loss, fullgraph=True)
    expected = call.gradients(call.loss)
    for argument, got in call.gradients(loss).items():
        assert_close(got, expected[argument], 1e-12, argument)


@pytest.mark.parametrize(("marked", "graphs"), [(True, 1), (False, 2)])
def test_a_new_length_does_not_compile_again(marked: bool, graphs: int) -> None:
    """Unmarked, the compiler needs a second length to see that it varies."""
    counter = CompileCounterWithBackend("aot_eager")
    call = CALLS["scan"]
    loss = torch.compile(call.loss, fullgraph=True, backend=counter)

    def marking(tensors: dict[str, Tensor]) -> Tensor:
        for name in call.batched if marked else ():
            torch._dynamo.mark_dynamic(tensors[name], 0)
            if name != "initial_state":
                torch._dynamo.mark_dynamic(tensors[name], 1)
        return loss(tensors)

    for b, l in ((2, 40), (3, 50), (4, 7), (2, 64), (5, 33)):
        other = scan_call(replace(scan_cases.EVERYTHING, b=b, l=l))
        expected = other.gradients(call.loss)
        for name, got in other.gradients(marking).items():
            assert torch.equal(got, expected[name]), name
    assert counter.frame_count == graphs


def test_new_offsets_do_not_compile_again() -> None:
    """Neither their values nor, from the second on, their number."""
    counter = CompileCounterWithBackend("aot_eager")
    f = torch.compile(causal_conv1d, fullgraph=True, backend=counter)
    x, weight = torch.randn(1, 20, 3), torch.randn(3, 4)
    for offsets in ([0, 5, 20], [0, 6, 20], [0, 1, 2, 20], [0, 4, 4, 9, 20], [0, 20, 20]):
        cu = torch.tensor(offsets)
        assert torch.equal(f(x, weight, cu_seqlens=cu), causal_conv1d(x, weight, cu_seqlens=cu))
    assert counter.frame_count == 2


def test_wrong_offsets_are_named_at_run_time() -> None:
    f = torch.compile(causal_conv1d, fullgraph=True, backend="aot_eager")
    x, weight = torch.randn(1, 20, 3), torch.randn(3, 4)
    f(x, weight, cu_seqlens=torch.tensor([0, 5, 20]))
    with pytest.raises(ValueError, match=r"cu_seqlens is \[0, 5, 21\], expected non-decreasing"):
        f(x, weight, cu_seqlens=torch.tensor([0, 5, 21]))


@pytest.mark.parametrize("name", ["scan", "conv"])
def test_the_reference_compiles(name: str) -> None:
    """It is plain PyTorch: the compiler unrolls its loop."""
    call = CALLS[name]
    call = replace(call, options={**call.options, "backend": "reference"})
    for got, expected in zip(compiled(call)(), call(), strict=True):
        assert_close(got, expected, 1e-13)


@pytest.mark.parametrize("name", ["scan", "conv"])
def test_without_native_kernels_the_reference_compiles_with_a_notice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "AVAILABLE", False)
    call = CALLS[name]
    call = replace(call, options={**call.options, "backend": "auto"})
    with pytest.warns(SsmKernelsWarning, match="runs the slow PyTorch reference"):
        got = compiled(call)()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(got[0], call()[0], 1e-13)


def test_environment_variable_decides_when_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "reference")
    call = CALLS["scan"]
    call = replace(call, options={**call.options, "backend": "auto"})
    counter = CompileCounterWithBackend("eager")
    compiled(call, counter)()
    (graph,) = counter.graphs
    assert not any("ssm_kernels" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.parametrize("name", ["scan", "conv"])
def test_autocast_keeps_the_type_of_each_argument(name: str) -> None:
    """Projections made under autocast arrive in bfloat16, parameters in float32."""
    call = CALLS[name]
    single = {k: x.float() for k, x in call.tensors.items()}
    sequences = {k: x.bfloat16() for k, x in single.items() if k in call.batched}
    del sequences["initial_state"]
    explicit = replace(call, tensors={**single, **sequences})
    expected = explicit.gradients(explicit.loss)
    eye = torch.eye(single["weight" if name == "conv" else "A"].shape[0])

    def loss(tensors: dict[str, Tensor]) -> Tensor:
        projected = {
            k: tensors[k] @ eye if tensors[k].shape[-1] == len(eye) else tensors[k]
            for k in sequences
        }
        assert all(projected[k].dtype is torch.bfloat16 for k in projected)
        return explicit.loss({**tensors, **projected})

    with torch.autocast("cpu", dtype=torch.bfloat16):
        eager = explicit.gradients(loss)
        traced = explicit.gradients(torch.compile(loss, fullgraph=True, backend="aot_eager"))
    for argument, value in expected.items():
        assert eager[argument].dtype is value.dtype
        assert torch.equal(eager[argument], value), argument
        assert torch.equal(traced[argument], value), argument


EXPORTED = [
    *("scan", "complex scan", "conv", "packed scan"),
    *(x for x in CALLS if "diagonal" in x or "ssd" in x),
]


class _Model(nn.Module):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.call(**tensors)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", EXPORTED)
def test_export_with_any_batch_and_length(name: str, strict: bool, tmp_path: Path) -> None:
    call = CALLS[name]
    if "cu_seqlens" in call.options:  # an input as well
        options = dict(call.options)
        tensors = {**call.tensors, "cu_seqlens": options.pop("cu_seqlens")}
        call = replace(call, tensors=tensors, options=options)
    batch, steps = torch.export.Dim("batch", min=1), torch.export.Dim("steps", min=2)
    sizes: dict[str, dict[int, object] | None] = {}
    for argument, x in call.tensors.items():
        is_batched, has_steps = argument in call.batched, x.dim() > 2 and x.shape[1] == 37
        sizes[argument] = {
            **({0: batch} if is_batched else {}),
            **({1: steps} if has_steps and call.batched else {}),
        }
    with torch.no_grad():
        program = torch.export.export(
            _Model(call), (call.tensors,), dynamic_shapes=(sizes,), strict=strict
        )
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    other = dict(call.tensors)
    for argument in call.batched:  # another batch, another length
        x = torch.cat([other[argument]] * 2)
        other[argument] = x[:, :11] if 1 in sizes[argument] else x
    for got, expected in zip(loaded(other), call(**other), strict=True):
        assert torch.equal(got, expected)


class _ConstantFactors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.linspace(0.1, 0.9, 8))

    def forward(self, u: Tensor) -> Tensor:
        return diagonal_scan(self.a, u)


def test_export_does_not_compare_channels_with_a_batch() -> None:
    model, sizes = _ConstantFactors(), {0: torch.export.Dim("b"), 1: torch.export.Dim("l")}
    program = torch.export.export(
        model, (torch.randn(3, 5, 8),), dynamic_shapes=(sizes,), strict=False
    )
    for b, l in ((8, 7), (2, 8)):
        u = torch.randn(b, l, 8)
        assert torch.equal(program.module()(u), model(u))


def test_vmap_inside_compile() -> None:
    call = CALLS["scan"]
    u = torch.randn(3, 2, 37, 12, dtype=torch.float64)
    f = torch.vmap(lambda u: call(u=u)[0])
    assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(u), f(u))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # what dual_level loads
def test_forward_mode_inside_compile_is_refused() -> None:
    """Never a tangent of zero: without a whole graph the operator's own refusal comes through."""
    x, weight = torch.randn(1, 5, 3), torch.randn(3, 4)

    def tangent(x: Tensor) -> Tensor | None:
        with forward_ad.dual_level():
            y = causal_conv1d(forward_ad.make_dual(x, x), weight)
            return forward_ad.unpack_dual(y).tangent

    with pytest.raises(Exception, match=r"forward-mode|Observed exception|WITH_EXCEPT_START"):
        torch.compile(tangent, fullgraph=True, backend="aot_eager")(x)
    torch._dynamo.reset()
    with pytest.raises(backends.BackendError, match="no forward-mode derivative"):
        torch.compile(tangent, backend="aot_eager")(x)


def test_gradient_wanted_or_not_is_part_of_the_graph() -> None:
    """Checkpoints are for the backward pass; a call without one must not keep them."""
    counter = CompileCounterWithBackend("eager")
    f = torch.compile(selective_scan, fullgraph=True, backend=counter)
    u, A, B = torch.rand(1, 4, 3), -torch.ones(3, 2), torch.ones(1, 4, 2)
    f(u, u, A, B, B)
    f(u, u, A.requires_grad_(), B, B).sum().backward()
    assert A.grad is not None
    saves = [
        node.args[-1]
        for graph in counter.graphs
        for node in graph.graph.nodes
        if "selective_scan_forward" in str(node.target)
    ]
    assert saves == [False, True]
