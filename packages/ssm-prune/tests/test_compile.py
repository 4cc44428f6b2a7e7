"""Masks under torch.compile: in place on the same storage, so that nothing is compiled again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from ssm_prune import MethodSpec
from ssm_prune.controller import Controller
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.masks import MaskStore
from ssm_prune.methods.dynamic import DynamicCosine
from ssm_prune.options import PruneOptions
from ssm_prune.steps import RunLength
from ssm_prune.testing import ToyModel

UPDATES = 20
Compiled = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_loss(model: ToyModel) -> tuple[Compiled, CompileCounterWithBackend]:
    """The compiled loss, and how often it has been compiled."""
    counter = CompileCounterWithBackend("aot_eager")

    def loss(x: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), target)

    return torch.compile(loss, backend=counter, fullgraph=True), counter


def started(model: nn.Module, optimizer: torch.optim.Optimizer) -> Controller:
    options = PruneOptions(sparsity=0.6, begin=1, end=UPDATES, every=1)
    method = Method(MethodSpec("dynamic-cosine", DynamicCosine, ""), "ssm-prune", "0")
    controller = Controller(method, options, PrunePlugins(load_entry_points=False))
    controller.start(model, optimizer, RunLength(UPDATES + 5, 10), seed=0)
    return controller


def train(model: ToyModel, loss: Compiled, steps: int) -> list[float]:
    """Train with pruning; the losses, and whether removed weights came back."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    controller = started(model, optimizer)
    losses = []
    for step in range(steps):
        data = torch.Generator().manual_seed(step)
        x, target = torch.randn(8, 5, generator=data), torch.randint(3, (8,), generator=data)
        optimizer.zero_grad()
        value = loss(x, target)
        value.backward()
        controller.before_optimizer_step(step)
        optimizer.step()
        controller.after_optimizer_step(step + 1)
        losses.append(float(value.detach()))
        for name, parameter in controller.parameters():
            removed = ~controller.store.mask(name)
            for tensor in (parameter.detach(), optimizer.state[parameter]["momentum_buffer"]):
                assert not tensor[removed].view(torch.int32).any(), f"{name} after step {step + 1}"
    assert len(controller.history) == UPDATES
    assert controller.achieved == pytest.approx(0.6, abs=0.002)
    return losses


def test_twenty_mask_updates_compile_nothing_again() -> None:
    torch.manual_seed(0)
    model = ToyModel()
    loss, counter = compiled_loss(model)
    losses = train(model, loss, UPDATES + 5)
    assert counter.frame_count == 1
    torch.manual_seed(0)
    plain = ToyModel()
    uncompiled = train(
        plain, lambda x, target: nn.functional.cross_entropy(plain(x), target), UPDATES + 5
    )
    # had the graph kept old weights, the losses would part as weights go
    assert losses == pytest.approx(uncompiled, rel=1e-5)


def test_the_counter_sees_a_weight_of_another_size() -> None:
    model = ToyModel()
    loss, counter = compiled_loss(model)
    data = torch.randn(8, 5), torch.zeros(8, dtype=torch.long)
    loss(*data)
    model.x_proj = nn.Linear(11, 6, bias=False)
    model.dt_proj = nn.Linear(6, 11)
    loss(*data)
    assert counter.frame_count == 2


def test_without_enforcement_compiled_steps_revive_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskStore, "enforce", lambda self, parameters, optimizer: None)
    model = ToyModel()
    with pytest.raises(AssertionError, match="after step"):
        train(model, compiled_loss(model)[0], UPDATES)
