"""How much candidate masks change from one to the next, and whether they have settled.

Source: You et al. 2020, arXiv:1909.11957. Its text and its published code disagree about the rule:
the code compares the newest mask with the four before it, the text asks for five small distances
between successive ones. A mask that drifts slowly for ever satisfies the second rule only.

All comparisons are of integer counts: in floats, 1 - 9 / 10 < 0.1 is True.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

Distance = Literal["hamming", "normalised", "jaccard"]
Rule = Literal["window", "consecutive"]
#: how many masks are compared
MASKS = 5
#: set bits of each byte
_ONES = torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8)


def exact(number: float) -> Fraction:
    """The decimal fraction that a person wrote: 1/10 for 0.1, and not the nearest float."""
    return Fraction(repr(number))


class MaskDistances:
    """Takes in one candidate mask after another.

    Args:
        size: weights, or units, of a mask.
        sparsity: the fraction that the masks remove.
        epsilon: distance up to which (window) or below which (consecutive) masks count as alike.

    Attributes:
        settled: whether the masks taken in so far have settled by the rule.
    """

    def __init__(
        self, size: int, sparsity: float, epsilon: float, distance: Distance, rule: Rule
    ) -> None:
        self.size, self.distance, self.rule = size, distance, rule
        self.epsilon = exact(epsilon)
        self.most = largest_distance(sparsity)
        self.settled = False
        # newest last, one bit per weight; they are compared with the next one
        self._masks: deque[Tensor] = deque(maxlen=MASKS - 1)
        self._calm = 0

    def take(self, gone: Tensor) -> list[float]:
        """Take in the next mask: eight booleans per byte (`masks.pack_bits`), True where removed.

        Returns:
            Distances to the masks before it, the newest first; at most four.
        """
        found = [self._between(gone, older) for older in reversed(self._masks)]
        if self.rule == "window":
            self.settled = len(found) == MASKS - 1 and max(found) <= self.epsilon
        else:
            self._calm = self._calm + 1 if found and found[0] < self.epsilon else 0
            self.settled = self._calm >= MASKS
        self._masks.append(gone)
        return [float(value) for value in found]

    def state_dict(self) -> dict[str, Any]:
        """The masks and the count that the next decision needs."""
        return {"masks": list(self._masks), "calm": self._calm, "settled": self.settled}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._masks.clear()
        self._masks.extend(state["masks"])
        self._calm, self.settled = int(state["calm"]), bool(state["settled"])

    def _between(self, one: Tensor, other: Tensor) -> Fraction:
        different = _count(one ^ other)
        if self.distance == "hamming":
            return Fraction(different, max(1, self.size))
        if self.distance == "normalised":
            return Fraction(different, max(1, self.size)) / self.most
        # of the rarer kind, removed or kept: the sets of the other are alike anyway
        both, either = _count(one & other), _count(one | other)
        if 2 * both + different > self.size:
            either = self.size - both
        return Fraction(different, max(1, either))


def largest_distance(sparsity: float) -> Fraction:
    """The largest Hamming distance of two masks of this sparsity: 2 min(p, 1 - p)."""
    removed = exact(sparsity)
    return 2 * min(removed, 1 - removed)


def _count(packed: Tensor) -> int:
    return int(_ONES[packed.long()].sum(dtype=torch.int64))
