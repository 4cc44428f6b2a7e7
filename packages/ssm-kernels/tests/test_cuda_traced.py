"""CUDA tensors without data: what compilers and exporters see of a program for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from traced_calls import Call, every_call

from ssm_kernels import backends, native, native_extension

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def gpu_without_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Nothing may run, and nothing may be asked of the extension module, which may be missing."""

    def no_module() -> None:
        raise AssertionError("a kernel was launched")

    monkeypatch.setattr(native, "cuda_problem", lambda device: None)
    monkeypatch.setattr(native_extension, "cuda_module", no_module)
    torch._dynamo.reset()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
    torch._dynamo.reset()


def on_cuda(call: Call) -> Call:
    def move(x: object) -> object:
        if not isinstance(x, Tensor):
            return x
        return torch.empty_strided(
            x.shape, x.stride(), dtype=x.dtype, device=CUDA, requires_grad=x.requires_grad
        )

    tensors = {name: move(x) for name, x in call.tensors.items()}
    options = {name: move(x) for name, x in call.options.items()} | {"backend": "auto"}
    return Call(call.operator, tensors, options, call.batched)  # type: ignore[arg-type]


@every_call
def test_results_are_cuda_tensors_like_those_of_the_cpu(call: Call) -> None:
    with torch.no_grad():
        found = on_cuda(call)()
    for got, expected in zip(found, call(), strict=True):
        assert got.device == CUDA
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)


@every_call
def test_one_graph(call: Call) -> None:
    """Neither the choice of the backend nor packed offsets on the GPU break the graph."""
    graphs: list[fx.GraphModule] = []

    def keep(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    other = on_cuda(call)
    compiled = torch.compile(other.operator, fullgraph=True, backend=keep)
    y, state = Call(compiled, other.tensors, other.options, other.batched)()
    assert y.device == state.device == CUDA
    assert len(graphs) == 1
    called = {str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"}
    assert any(name.startswith("ssm_kernels.") and "_forward" in name for name in called)


def test_a_problem_of_the_gpu_chooses_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "cuda_problem", lambda device: "the driver is too old")
    with pytest.warns(backends.SsmKernelsWarning, match="the driver is too old"):
        chosen = backends.choose_backend("scan", "auto", CUDA)
    assert chosen is backends.Backend.REFERENCE
