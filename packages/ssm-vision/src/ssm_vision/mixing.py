"""Mixup and CutMix: images put together from two, and labels likewise.

Sources: Zhang et al. 2018, arXiv:1710.09412 (Mixup); Yun et al. 2019, arXiv:1905.04899 (CutMix).
One draw for a whole batch, each image with the one opposite to it in the batch, as in DeiT's recipe
(arXiv:2012.12877). All numbers are drawn from torch's CPU generator, so that nothing waits for a
GPU and a resumed run draws the same.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional as F

Images: TypeAlias = Annotated[Tensor, "b c y x"]
Labels: TypeAlias = Annotated[Tensor, "b"]
SoftTargets: TypeAlias = Annotated[Tensor, "b classes"]


class Mixing(NamedTuple):
    """How batches are mixed.

    Attributes:
        mixup: alpha of the Beta law of Mixup's shares; 0 switches it off.
        cutmix: the same for CutMix.
        probability: of mixing a batch at all.
        switch: probability of CutMix where both are on.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5

    @property
    def on(self) -> bool:
        """Whether any batch is ever mixed."""
        return (self.mixup > 0 or self.cutmix > 0) and self.probability > 0

    def __call__(
        self, images: Images, labels: Labels, n_classes: int
    ) -> tuple[Images, SoftTargets]:
        """Mix a batch of images (b, c, y, x) with labels (b,) int64.

        Returns: the images and the shares of the classes (b, n_classes) float32, which sum to 1.

        Cost: one pass over the images.
        """
        targets = F.one_hot(labels, n_classes).float()
        if float(torch.rand(())) >= self.probability:
            return images, targets
        cut = self.cutmix > 0 and (self.mixup == 0 or float(torch.rand(())) < self.switch)
        alpha = self.cutmix if cut else self.mixup
        share = float(Beta(alpha, alpha).sample())
        if cut:
            images, share = _with_rectangle(images, share)
        else:
            images = images * share + images.flip(0) * (1 - share)
        return images, targets * share + targets.flip(0) * (1 - share)


def _with_rectangle(images: Images, share: float) -> tuple[Images, float]:
    """Put a rectangle of the opposite image into each; returns the share that is left of the own.

    The rectangle has 1 - share of the area before it is cut off at the edges.
    """
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    centre_y, centre_x = (int(torch.randint(n, ())) for n in (height, width))
    top, bottom = _interval(centre_y, int(height * side), height)
    left, right = _interval(centre_x, int(width * side), width)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _interval(centre: int, length: int, end: int) -> tuple[int, int]:
    return max(0, centre - length // 2), min(end, centre + length // 2)
