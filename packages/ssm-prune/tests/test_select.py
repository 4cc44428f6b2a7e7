from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_prune.select import (
    erk_counts,
    keep_globally,
    keep_per_layer,
    layer_counts,
    lowest,
    target_count,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
#: few distinct values, so that most scores tie
VALUES = st.sampled_from([0.0, -0.0, 0.5, 0.5, 1.0, 3.0, -2.0, float("inf"), float("-inf")])


@st.composite
def scores_and_limits(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, int]]:
    dtype = draw(st.sampled_from(DTYPES))
    scores, limits = {}, {}
    for name in draw(st.lists(st.sampled_from("zyxwv"), unique=True)):
        rows, columns = draw(st.integers(0, 4)), draw(st.integers(1, 3))
        size = rows * columns
        values = draw(st.lists(VALUES, min_size=size, max_size=size))
        scores[name] = torch.tensor(values, dtype=dtype).view(rows, columns)
        limits[name] = draw(st.integers(0, size))
    return scores, limits


def oracle(scores: dict[str, Tensor], count: int, limits: dict[str, int]) -> dict[str, list[bool]]:
    """Take the lowest (score, name, index) one by one, passing over tensors at their limit."""
    ranked = sorted(
        (value, name, index)
        for name, score in scores.items()
        for index, value in enumerate(score.flatten().tolist())
    )
    keep = {name: [True] * score.numel() for name, score in scores.items()}
    left = dict(limits)
    for _, name, index in ranked:
        if count and left[name]:
            keep[name][index] = False
            left[name] -= 1
            count -= 1
    return keep


@settings(max_examples=200, deadline=None)
@given(case=scores_and_limits(), data=st.data())
def test_global_selection_equals_the_sorted_oracle(
    case: tuple[dict[str, Tensor], dict[str, int]], data: st.DataObject
) -> None:
    scores, limits = case
    # the oracle passes over a full tensor; infinite scores in it would tie with what is excluded
    scores = {n: s.nan_to_num(posinf=100.0) for n, s in scores.items()}
    count = data.draw(st.integers(0, sum(limits.values())))
    keep = keep_globally(scores, count, limits)
    assert {name: mask.flatten().tolist() for name, mask in keep.items()} == oracle(
        scores, count, limits
    )
    assert all(mask.shape == scores[name].shape for name, mask in keep.items())


@settings(max_examples=100, deadline=None)
@given(case=scores_and_limits())
def test_selection_per_layer_takes_each_count(
    case: tuple[dict[str, Tensor], dict[str, int]],
) -> None:
    scores, counts = case
    for name, mask in keep_per_layer(scores, counts).items():
        alone = oracle({name: scores[name]}, counts[name], {name: counts[name]})
        assert mask.flatten().tolist() == alone[name]


def test_half_zeros_and_bfloat16_give_the_exact_count() -> None:
    torch.manual_seed(0)
    weights = torch.randn(1001).bfloat16()
    weights[:500] = 0
    for count in (0, 1, 200, 500, 501, 999, 1001):
        assert int(lowest(weights.abs().float(), count).sum()) == count
    assert lowest(weights.abs().float(), 200).nonzero().max() == 199  # the first of equal ones


def test_scores_that_are_not_numbers_are_refused() -> None:
    scores = {"w": torch.tensor([1.0, float("nan")])}
    with pytest.raises(ConfigError, match="scores of w hold NaN"):
        keep_globally(scores, 1, {"w": 2})


def test_more_than_the_limits_allow_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 weights are to be removed, but limits allow 2"):
        keep_globally({"w": torch.ones(4)}, 3, {"w": 2})


def test_layers_without_limits_lose_the_same_fraction() -> None:
    sizes = {"a": 10, "b": 7, "c": 1}
    assert layer_counts(sizes, sizes, 0.5) == {"a": 5, "b": 4, "c": 0}


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    caps=st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=6, max_size=6),
    sparsity=st.floats(0, 0.99),
)
def test_layers_at_their_limit_leave_the_rest_to_the_others(
    sizes: list[int], caps: list[float], sparsity: float
) -> None:
    named = {str(i): size for i, size in enumerate(sizes)}
    limits = {name: int(caps[int(name)] * size) for name, size in named.items()}
    counts = layer_counts(named, limits, sparsity)
    assert counts.keys() == named.keys()
    assert all(0 <= counts[name] <= limits[name] for name in named)
    wanted = min(sparsity * sum(sizes), sum(limits.values()))
    # each tensor rounds by at most half a weight
    assert abs(sum(counts.values()) - wanted) <= len(sizes) / 2 + 1e-6


def test_target_count_is_the_nearest_integer() -> None:
    assert [target_count(0.8, n) for n in (0, 1, 3, 10, 12345)] == [0, 1, 2, 8, 9876]


def test_erk_gives_the_published_densities() -> None:
    shapes = {"conv": torch.Size([64, 32, 3, 3]), "large": torch.Size([400, 300])}
    shapes["small"] = torch.Size([8, 6])
    limits = {name: shape.numel() for name, shape in shapes.items()}
    counts = erk_counts(shapes, limits, 0.9)
    # Erdos-Renyi-Kernel: density = scale (n_in + n_out + k_h + k_w) / (n_in n_out k_h k_w)
    raw = {"conv": (64 + 32 + 3 + 3) / (64 * 32 * 9), "large": 700 / 120_000}
    density = {name: 1 - counts[name] / shapes[name].numel() for name in shapes}
    assert counts["small"] == 0  # 14 / 48 times the scale is above 1: dense
    assert density["conv"] / density["large"] == pytest.approx(raw["conv"] / raw["large"], rel=1e-3)
    kept = 0.1 * (64 * 32 * 9 + 120_000 + 48) - 48
    scale = kept / (102 + 700)
    assert density["large"] == pytest.approx(scale * raw["large"], abs=1e-5)


@settings(max_examples=200, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=4), min_size=1, max_size=6),
    caps=st.lists(st.sampled_from([0.0, 0.5, 0.9, 1.0]), min_size=6, max_size=6),
    sparsity=st.floats(0, 0.99),
)
def test_erk_equals_a_bisected_scale_and_keeps_the_limits(
    shapes: list[list[int]], caps: list[float], sparsity: float
) -> None:
    named = {str(i): torch.Size(shape) for i, shape in enumerate(shapes)}
    sizes = {name: shape.numel() for name, shape in named.items()}
    limits = {name: int(caps[int(name)] * sizes[name]) for name in named}
    counts = erk_counts(named, limits, sparsity)
    assert all(0 <= counts[name] <= limits[name] for name in named)

    def kept(name: str, scale: float) -> float:
        dense = scale * sum(named[name]) / sizes[name]
        return max(sizes[name] - limits[name], min(1.0, dense) * sizes[name])

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        few = sum(kept(name, middle) for name in named) < (1 - sparsity) * sum(sizes.values())
        low, high = (middle, high) if few else (low, middle)
    for name, count in counts.items():
        # rounded to the nearest; the scale may be any where nothing depends on it
        assert abs(count - (sizes[name] - kept(name, high))) <= 0.5 + 1e-6


@given(one=st.floats(0, 0.99), other=st.floats(0, 0.99))
def test_a_higher_sparsity_takes_no_less_of_any_tensor(one: float, other: float) -> None:
    shapes = {"a": torch.Size([40, 30]), "b": torch.Size([9, 9]), "c": torch.Size([5, 200])}
    limits = {"a": 1200, "b": 40, "c": 900}
    low, high = (erk_counts(shapes, limits, s) for s in sorted((one, other)))
    assert all(low[name] <= high[name] for name in shapes)
