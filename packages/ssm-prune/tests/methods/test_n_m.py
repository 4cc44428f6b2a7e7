from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ssm_core.errors import ConfigError
from ssm_prune import MethodSpec, ProposalError
from ssm_prune.controller import Controller
from ssm_prune.loader import Method, PrunePlugins
from ssm_prune.methods.n_m import NM, NMOptions, n_m_mask
from ssm_prune.report import report
from ssm_prune.steps import RunLength

SPEC = MethodSpec("n:m", NM, "", NMOptions)


@st.composite
def patterns(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    m = draw(st.integers(2, 6))
    n = draw(st.integers(1, m - 1))
    rows, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    values = st.sampled_from([0.0, -0.0, 0.5, 0.5, 2.0, float("inf")])  # most of them tie
    size = rows * groups * m
    scores = draw(st.lists(values, min_size=size, max_size=size))
    return torch.tensor(scores, dtype=dtype).view(rows, groups * m), n, m


@settings(max_examples=200, deadline=None)
@given(case=patterns())
def test_each_group_keeps_its_n_best(case: tuple[Tensor, int, int]) -> None:
    score, n, m = case
    mask = n_m_mask("w", score, n, m)
    assert mask.shape == score.shape
    for row in range(score.shape[0]):
        for start in range(0, score.shape[1], m):
            group = [(float(score[row, start + j]), j) for j in range(m)]
            kept = {j for _, j in sorted(group)[m - n :]}
            assert {j for j in range(m) if mask[row, start + j]} == kept


def build(model: nn.Module, n: int = 2, m: int = 4) -> tuple[Controller, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    options = NMOptions(n=n, m=m, begin=2)
    plugins = PrunePlugins(load_entry_points=False)
    controller = Controller(Method(SPEC, "x", "0"), options, plugins)
    controller.start(model, optimizer, RunLength(6, 3), seed=0)
    return controller, optimizer


class Block(nn.Module):
    """Tensors that can have the pattern and some that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.in_proj = nn.Linear(8, 16, bias=False)
        self.x_proj = nn.Linear(16, 5, bias=False)
        self.odd = nn.Linear(5, 6, bias=False)
        self.patch = nn.Conv1d(6, 8, 4)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.odd(self.x_proj(self.in_proj(self.first(x)).tanh()))
        return self.last(self.patch(hidden.mT).mT).mean(dim=1)


def train(
    model: nn.Module, controller: Controller, optimizer: torch.optim.Optimizer, steps: int
) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 6, 3)).square().mean().backward()
        controller.before_optimizer_step(step)
        optimizer.step()
        controller.after_optimizer_step(step + 1)


def test_what_fits_has_the_pattern_from_begin_to_the_end_and_the_rest_is_dense() -> None:
    torch.manual_seed(0)
    model = Block()
    controller, optimizer = build(model)
    train(model, controller, optimizer, 1)
    assert controller.achieved == 0
    for step in range(1, 6):
        optimizer.zero_grad()
        model(torch.randn(4, 6, 3)).square().mean().backward()
        controller.before_optimizer_step(step)
        optimizer.step()
        if step == 1:
            before = model.in_proj.weight.detach().clone()
        controller.after_optimizer_step(step + 1)
        for weight in (model.in_proj.weight, model.x_proj.weight):
            assert ((weight != 0).view(-1, 4).sum(dim=1) == 2).all()
    best = before.abs().view(-1, 4).topk(2, dim=1).indices.sort(dim=1).values
    left = model.in_proj.weight.view(-1, 4).ne(0).nonzero()[:, 1].view(-1, 2)
    assert torch.equal(best, left)
    assert bool((model.odd.weight != 0).all())
    assert bool((model.patch.weight != 0).all())
    controller.check_reached(6)


def test_the_report_says_what_was_left_out_and_what_the_sparsity_is() -> None:
    model = Block()
    controller, optimizer = build(model)
    train(model, controller, optimizer, 6)
    found = report([controller], 6)
    removed = (16 * 8 + 5 * 16) // 2
    total = 16 * 8 + 5 * 16 + 6 * 5 + 8 * 6 * 4
    assert found["removed_weights"] == removed
    assert found["prunable_weights"] == total
    assert found["requested_sparsity"] == found["achieved_sparsity"] == removed / total
    assert found["left_out_by_method"] == {
        "odd.weight": "5 inputs, not a multiple of 4",
        "patch.weight": "shape (8, 6, 4), not a matrix (out, in)",
    }


def test_a_tensor_whose_cap_the_pattern_would_break_stays_dense() -> None:
    controller, _ = build(Block(), n=1, m=4)
    assert controller.ctx.left_out["x_proj.weight"] == (
        "the pattern takes 60 weights, the policy at most 40"
    )
    assert controller.schedule.sparsity == 96 / (16 * 8 + 5 * 16 + 6 * 5 + 8 * 6 * 4)


def test_a_pattern_that_fits_nothing_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"2:7 fits no prunable tensor: in_proj\.weight \(8 in"):
        build(Block(), n=2, m=7)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 4)])
def test_n_of_m_must_be_some_but_not_all(n: int, m: int) -> None:
    with pytest.raises(ConfigError, match=rf"prune\.n is {n} and prune\.m is {m}, expected 0 < n"):
        NMOptions(n=n, m=m)


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ProposalError, match="scores of w hold NaN"):
        n_m_mask("w", torch.tensor([[1.0, math.nan]]), 1, 2)
