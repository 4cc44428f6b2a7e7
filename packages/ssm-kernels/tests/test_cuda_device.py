"""What only a GPU shows: streams, CUDA graphs, runs with the same bits, nothing that waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from traced_calls import Call, every_call

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
Results = dict[str, Tensor]


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raise where torch would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def on_gpu(call: Call) -> Call:
    """The same call in float32 (or complex64) on the GPU."""

    def move(x: object) -> object:
        if not isinstance(x, Tensor):
            return x
        if not (x.is_floating_point() or x.is_complex()):
            return x.cuda()
        return x.detach().to("cuda", torch.complex64 if x.is_complex() else torch.float32)

    tensors = {name: move(x) for name, x in call.tensors.items()}
    options = {name: move(x) for name, x in call.options.items()} | {"backend": "cuda"}
    return replace(call, tensors=tensors, options=options)  # type: ignore[arg-type]


def run(call: Call, leaves: dict[str, Tensor]) -> Results:
    """Results and gradients."""
    y, state = call(**leaves)
    total = sum((torch.view_as_real(x) if x.is_complex() else x).sin().sum() for x in (y, state))
    gradients = torch.autograd.grad(total, list(leaves.values()))  # type: ignore[arg-type]
    return {"y": y.detach(), "state": state.detach(), **dict(zip(leaves, gradients, strict=True))}


def assert_same_bits(found: Results, expected: Results) -> None:
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@every_call
def test_three_runs_have_the_same_bits(call: Call) -> None:
    call = on_gpu(call)
    first, second, third = (run(call, call.fresh()) for _ in range(3))
    assert_same_bits(second, first)
    assert_same_bits(third, first)


@every_call
def test_another_stream(call: Call) -> None:
    """The kernels run on the current stream: what that stream still has to write is waited for."""
    call = on_gpu(call)
    expected = run(call, call.fresh())
    leaves = {k: torch.zeros_like(x).requires_grad_() for k, x in call.tensors.items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # some 10 ms
        with torch.no_grad():
            for name, x in leaves.items():
                x.copy_(call.tensors[name])
        found = run(call, leaves)
    torch.cuda.synchronize()
    assert_same_bits(found, expected)


@every_call
def test_nothing_waits(call: Call) -> None:
    call = on_gpu(call)
    leaves = call.fresh()
    with no_waiting():
        found = run(call, leaves)
    assert found["y"].is_cuda


@every_call
def test_a_graph_replays_with_new_inputs(call: Call) -> None:
    call = on_gpu(call)
    leaves = call.fresh()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is loaded at first use is loaded before the capture
        run(call, leaves)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(call, leaves)
    with torch.no_grad():
        for x in leaves.values():
            x.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(captured, run(call, leaves))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@every_call
def test_a_device_that_is_not_the_current_one(call: Call) -> None:
    expected = run(on_gpu(call), on_gpu(call).fresh())
    other = {name: x.to("cuda:1") for name, x in on_gpu(call).tensors.items()}
    options = {k: x.to("cuda:1") if isinstance(x, Tensor) else x for k, x in call.options.items()}
    moved = replace(call, tensors=other, options={**options, "backend": "cuda"})
    found = run(moved, moved.fresh())
    assert torch.cuda.current_device() == 0
    assert_same_bits({k: x.to("cuda:0") for k, x in found.items()}, expected)
