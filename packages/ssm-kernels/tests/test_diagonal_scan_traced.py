"""What is special about the diagonal scan under torch.compile and torch.func: `a` of any axes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diagonal_cases import factors
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from ssm_kernels import diagonal_scan, native


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("shape", [(1, 1, 6), (6,)])
def test_the_graph_of_a_constant_a_holds_for_any_batch_and_length(shape: tuple[int, ...]) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    f = torch.compile(diagonal_scan, fullgraph=True, backend=counter)
    a = factors(*shape, dtype=torch.complex64).requires_grad_()
    for b, l in ((2, 40), (3, 50), (4, 7), (2, 64), (7, 33)):
        u = torch.randn(b, l, 6, requires_grad=True)
        results = []
        for call in (f, diagonal_scan):
            h = call(a, u)
            results.append((h, *torch.autograd.grad(h.abs().sum(), (a, u))))
        assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))
    assert counter.frame_count == 2  # the second length shows that it varies


@pytest.mark.parametrize(
    "types", [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float16)]
)
def test_mixed_types_in_one_graph(types: tuple[torch.dtype, torch.dtype]) -> None:
    f = torch.compile(diagonal_scan, fullgraph=True, backend="aot_eager")
    a = factors(2, 9, 6, dtype=types[0]).requires_grad_()
    u = torch.randn(2, 9, 6).to(types[1]).requires_grad_()
    results = []
    for call in (f, diagonal_scan):
        h = call(a, u)
        results.append((h, *torch.autograd.grad(h.sum(), (a, u))))
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))
    assert [x.dtype for x in results[0]] == [types[1], *types]


def test_wrong_offsets_are_named_at_run_time() -> None:
    f = torch.compile(diagonal_scan, fullgraph=True, backend="aot_eager")
    a, u = torch.rand(6), torch.randn(1, 20, 6)
    f(a, u, cu_seqlens=torch.tensor([0, 5, 20]))
    with pytest.raises(ValueError, match=r"cu_seqlens is \[0, 5, 21\], expected non-decreasing"):
        f(a, u, cu_seqlens=torch.tensor([0, 5, 21]))


def test_vmap_folds_whatever_has_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One launch, also for the gradients, unless `a` is shared by the batch and mapped."""
    launches: list[int] = []
    for name in ("diagonal_scan_forward", "diagonal_scan_backward"):
        launch = getattr(native, name)

        def counted(*arguments: Tensor, launch: object = launch, **options: object) -> object:
            launches.append(arguments[0].shape[0])
            return launch(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(native, name, counted)
    u = torch.randn(3, 2, 9, 6)
    full, shared = torch.rand(3, 2, 9, 6), torch.rand(3, 1, 9, 6)
    torch.vmap(diagonal_scan)(full, u)
    assert launches == [6]
    launches.clear()
    torch.vmap(diagonal_scan, in_dims=(None, 0))(shared[0], u)
    assert launches == [1]
    launches.clear()
    torch.vmap(diagonal_scan)(shared, u)
    assert launches == [1, 1, 1]
