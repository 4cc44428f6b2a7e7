from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_jaccard_index

from ssm_vision.segmentation_metrics import Dice, IoU, PixelAccuracy


@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 2**31))
def test_agrees_with_torchmetrics(classes: int, pixels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes, (pixels,), generator=generator)
    guess = torch.randint(classes, (pixels,), generator=generator)
    truth[0] = guess[0] = classes - 1
    for k in (0, classes - 1):
        if not bool(((truth == k) | (guess == k)).any()):
            continue
        for metric, function in ((Dice, multiclass_f1_score), (IoU, multiclass_jaccard_index)):
            mine = metric(classes, k)
            mine.update(guess[: pixels // 2], truth[: pixels // 2])
            mine.update(guess[pixels // 2 :], truth[pixels // 2 :])
            expected = function(guess, truth, classes, average="none")[k]
            assert float(mine.compute()) == pytest.approx(float(expected), abs=1e-6)


def test_starts_anew_after_a_reset() -> None:
    metric = PixelAccuracy(2)
    metric.update(torch.tensor([0, 1, 1]), torch.tensor([0, 0, -1]))
    assert float(metric.compute()) == 0.5
    metric.reset()
    metric.update(torch.tensor([[1]]), torch.tensor([[1]]))
    assert float(metric.compute()) == 1.0
