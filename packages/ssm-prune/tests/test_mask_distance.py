"""When masks have settled: the two published rules, counted in integers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssm_core.train.checkpoint import load_state, save_state
from ssm_prune.mask_distance import MaskDistances
from ssm_prune.masks import pack_bits

SIZE = 200
Masks = Sequence[Sequence[bool]]


def emerges(masks: Masks, rule: str, epsilon: float = 0.1, distance: str = "hamming") -> int | None:
    """The index of the first mask at which the rule fires."""
    found = MaskDistances(len(masks[0]), 0.5, epsilon, distance, rule)
    for index, mask in enumerate(masks):
        found.take(pack_bits(torch.tensor(mask)))
        if found.settled:
            return index
    return None


def drift(per_step: float, steps: int, size: int = SIZE) -> list[list[bool]]:
    """Half of the places are removed; in each step so many places change, never back."""
    half, moved = size // 2, round(per_step * size / 2)
    masks = []
    for step in range(steps):
        gone = {(place + step * moved) % size for place in range(half)}
        masks.append([place in gone for place in range(size)])
    return masks


def wild(count: int, generator: random.Random, size: int = SIZE) -> list[list[bool]]:
    return [[generator.random() < 0.5 for _ in range(size)] for _ in range(count)]


@pytest.mark.parametrize("settled", range(7))
def test_a_mask_that_settles_is_seen_after_4_or_5_more(settled: int) -> None:
    masks = wild(settled, random.Random(settled)) + [wild(1, random.Random(99))[0]] * 9
    assert emerges(masks, "window") == settled + 4
    assert emerges(masks, "consecutive") == settled + 5


def test_a_mask_that_drifts_for_ever_fires_one_rule_only() -> None:
    masks = drift(0.04, 40)
    assert sum(a != b for a, b in zip(masks[0], masks[1], strict=True)) == 0.04 * SIZE
    assert emerges(masks, "window") is None
    assert emerges(masks, "consecutive") == 5


@pytest.mark.parametrize("size", [10, 30, 70, 190, 1000])
def test_a_distance_of_exactly_a_tenth_passes_one_rule_only(size: int) -> None:
    one = [place < size // 2 for place in range(size)]
    other = [not gone if place < size // 10 else gone for place, gone in enumerate(one)]
    masks = [one, other] * 6
    assert emerges(masks, "window") == 4
    assert emerges(masks, "consecutive") is None
    assert 1 - 9 / 10 < 0.1  # floats would let it pass the other rule too


def oracle(masks: Masks, rule: str, epsilon: Fraction, distance: str) -> int | None:
    """Slow and obvious."""

    def between(a: Sequence[bool], b: Sequence[bool]) -> Fraction:
        xor = sum(x != y for x, y in zip(a, b, strict=True))
        if distance == "jaccard":
            rare = sum(a) + sum(b) <= len(a)
            union = sum((x or y) if rare else not (x and y) for x, y in zip(a, b, strict=True))
            return Fraction(xor, union) if union else Fraction(0)
        return Fraction(xor, len(a))  # of masks of one half, the normalised distance is the same

    for index in range(len(masks)):
        if rule == "window":
            older = masks[max(0, index - 4) : index]
            if len(older) == 4 and all(between(masks[index], m) <= epsilon for m in older):
                return index
        else:
            steps = [between(masks[i], masks[i - 1]) for i in range(1, index + 1)][-5:]
            if len(steps) == 5 and all(d < epsilon for d in steps):
                return index
    return None


@pytest.mark.parametrize("distance", ["hamming", "normalised", "jaccard"])
@pytest.mark.parametrize("rule", ["window", "consecutive"])
def test_random_sequences_agree_with_brute_force(rule: str, distance: str) -> None:
    generator = random.Random(f"{rule} {distance}")
    fired = 0
    for _ in range(1000 if distance == "hamming" else 200):
        size, epsilon = generator.randint(5, 40), generator.choice([0.1, 0.2, 0.25, 0.3])
        share = generator.choice([0.2, 0.5, 0.8])
        mask = [generator.random() < share for _ in range(size)]
        masks = []
        for _ in range(14):
            for _ in range(generator.choice([0, 0, 1, 1, 2, size // 4])):
                mask[generator.randrange(size)] ^= True
            masks.append(list(mask))
        wanted = oracle(masks, rule, Fraction(repr(epsilon)), distance)
        assert emerges(masks, rule, epsilon, distance) == wanted
        fired += wanted is not None
    assert 0.2 < fired / (1000 if distance == "hamming" else 200) < 0.9


@pytest.mark.parametrize("rule", ["window", "consecutive"])
def test_what_is_remembered_survives_a_kill_at_every_index(tmp_path: Path, rule: str) -> None:
    masks = wild(3, random.Random(1)) + drift(0.02, 9)
    wanted = emerges(masks, rule)
    assert wanted is not None
    packed = [pack_bits(torch.tensor(mask)) for mask in masks]
    whole = MaskDistances(SIZE, 0.5, 0.1, "hamming", rule)
    rows = [whole.take(mask) for mask in packed]
    for kill in range(len(masks)):
        first = MaskDistances(SIZE, 0.5, 0.1, "hamming", rule)
        for mask in packed[:kill]:
            first.take(mask)
        save_state(tmp_path / "state", first.state_dict())
        second = MaskDistances(SIZE, 0.5, 0.1, "hamming", rule)
        second.load_state_dict(load_state(tmp_path / "state"))
        assert second.settled == first.settled
        for index, mask in list(enumerate(packed))[kill:]:
            assert second.take(mask) == rows[index]
            if index < wanted:
                assert not second.settled
            assert index != wanted or second.settled


def test_distances_are_to_the_masks_before_newest_first() -> None:
    found = MaskDistances(10, 0.3, 0.1, "hamming", "window")
    rows = []
    for step in range(7):
        gone: Tensor = torch.arange(10) < step
        rows.append(found.take(pack_bits(gone)))
    assert rows[0] == []
    assert rows[2] == [0.1, 0.2]
    assert rows[6] == [0.1, 0.2, 0.3, 0.4]


def test_distances_relative_to_the_largest_possible() -> None:
    one, other = torch.arange(100) < 5, torch.arange(100) >= 95
    for sparsity, flip in ((0.05, False), (0.95, True)):
        a, b = (pack_bits(mask ^ flip) for mask in (one, other))
        for distance, wanted in (("hamming", 0.1), ("normalised", 1.0), ("jaccard", 1.0)):
            found = MaskDistances(100, sparsity, 0.1, distance, "window")
            found.take(a)
            assert found.take(b) == [wanted], (distance, sparsity)
