from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError
from ssm_vision.segmentation import (
    Segmentation,
    SegmentationOptions,
    cross_entropy,
    dice_loss,
    predicted,
)


def task(classes: int = 1, options: SegmentationOptions | None = None) -> Segmentation:
    return Segmentation(options or SegmentationOptions(), DataInfo((1, 4, 6), classes))


def batch(classes: int) -> tuple[Tensor, Tensor]:
    """Logits as inputs of an identity, and targets with two pixels that are not counted."""
    targets = torch.randint(max(classes, 2), (3, 4, 6))
    targets[0, 1, 2] = targets[2, 3, 5] = -1
    return torch.randn(3, classes, 4, 6), targets


@pytest.mark.parametrize("form", ["isic", "synapse"])
@pytest.mark.parametrize("classes", [1, 3])
def test_dice_loss_pixel_by_pixel(classes: int, form: str) -> None:
    logits, targets = batch(classes)
    p = torch.sigmoid(logits) if classes == 1 else torch.softmax(logits, 1)
    groups = [[i] for i in range(3)] if form == "isic" else [[0, 1, 2]]
    fractions = []
    for images in groups:
        for k in range(classes):
            both = below = 0.0
            for i, y, x in ((i, y, x) for i in images for y in range(4) for x in range(6)):
                if targets[i, y, x] < 0:
                    continue
                truth = float(targets[i, y, x] == (1 if classes == 1 else k))
                p1 = float(p[i, k, y, x])
                both += p1 * truth
                below += p1 + truth if form == "isic" else p1 * p1 + truth * truth
            fractions.append((2 * both + 0.3) / (below + 0.3))
    found = dice_loss(logits, targets, form, 0.3)  # type: ignore[arg-type]
    assert float(found) == pytest.approx(1 - sum(fractions) / len(fractions), abs=1e-6)


@pytest.mark.parametrize("classes", [1, 3])
def test_cross_entropy_is_the_mean_over_counted_pixels(classes: int) -> None:
    logits, targets = batch(classes)
    scores = torch.cat([torch.zeros_like(logits), logits], 1) if classes == 1 else logits
    expected = F.cross_entropy(scores, targets, ignore_index=-1)
    torch.testing.assert_close(cross_entropy(logits, targets), expected)
    assert float(cross_entropy(logits, torch.full_like(targets, -1))) == 0


@pytest.mark.parametrize(
    ("classes", "form", "smoothing"), [(1, "isic", 1.0), (9, "synapse", 1e-5), (2, "synapse", 1e-5)]
)
def test_loss_of_the_published_trainings(classes: int, form: str, smoothing: float) -> None:
    images, targets = batch(classes)
    loss, logits = task(classes).loss(nn.Identity(), (images, targets))
    assert torch.equal(logits, images)
    expected = dice_loss(images, targets, form, smoothing)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, expected + cross_entropy(images, targets))


def test_weights_smoothing_and_form_are_options() -> None:
    images, targets = batch(3)
    options = SegmentationOptions(0.25, 0.0, form="isic", smoothing=2.0)
    loss, _ = task(3, options).loss(nn.Identity(), (images, targets))
    torch.testing.assert_close(loss, 0.25 * dice_loss(images, targets, "isic", 2.0))
    loss, _ = task(3, SegmentationOptions(0.0, 3.0)).loss(nn.Identity(), (images, targets))
    torch.testing.assert_close(loss, 3 * cross_entropy(images, targets))


def test_loss_is_finite_in_half_precision_and_for_no_images() -> None:
    images, targets = batch(1)
    far = (1e4 * images).half().requires_grad_()
    loss, _ = task().loss(nn.Identity(), (far, targets))
    loss.backward()
    assert loss.dtype is torch.float32
    assert loss.isfinite()
    assert far.grad is not None
    assert far.grad.isfinite().all()
    assert task().loss(nn.Identity(), (images[:0], targets[:0]))[0].isfinite()


def test_a_model_of_something_else() -> None:
    images, targets = batch(3)
    with pytest.raises(ShapeError, match=r"gives logits of shape \(3, 2\) .* = \(3, 3, 4, 6\)"):
        task(3).loss(nn.Identity(), (images[:, 0, 0, :2], targets))


def figures(classes: int, pairs: list[tuple[Tensor, Tensor]], ignored: int | None = None) -> dict:  # type: ignore[type-arg]
    one = task(classes, SegmentationOptions(ignore_index=ignored))
    metrics = one.metrics()
    for outputs, targets in pairs:
        one.update(metrics, outputs, (None, targets))
    return {name: float(value) for name, value in metrics.compute().items()}


def test_binary_metrics_pool_the_pixels_of_all_images() -> None:
    pairs = [batch(1) for _ in range(3)]
    found = figures(1, pairs)
    guess = torch.cat([(logits.sigmoid() > 0.5)[:, 0].flatten() for logits, _ in pairs])
    truth = torch.cat([targets.flatten() for _, targets in pairs])
    guess, truth = guess[truth >= 0], truth[truth >= 0] == 1
    both, either = int((guess & truth).sum()), int((guess | truth).sum())
    sizes = int(guess.sum() + truth.sum())
    assert found["dice"] == pytest.approx(2 * both / sizes)
    assert found["iou"] == pytest.approx(both / either)
    assert found["pixel_accuracy"] == pytest.approx(float((guess == truth).float().mean()))
    neither = int((~guess & ~truth).sum())
    assert found["dice_background"] == pytest.approx(2 * neither / (2 * len(truth) - sizes))
    assert (Segmentation.monitor, Segmentation.higher_is_better) == ("dice", True)


def test_metrics_of_classes_are_means_over_those_that_occur() -> None:
    logits, targets = batch(5)
    logits[:, 3:] = -9.0
    targets[targets >= 3] = 0
    found = figures(5, [(logits[:1], targets[:1]), (logits[1:], targets[1:])], ignored=2)
    guess, known = logits.argmax(1), (targets >= 0) & (targets != 2)
    dice, iou = [], []
    for k in range(3):  # 2 occurs in the prediction only
        both = float(((guess == k) & (targets == k) & known).sum())
        sizes = float(((guess == k) & known).sum() + ((targets == k) & known).sum())
        dice.append(2 * both / sizes)
        iou.append(both / (sizes - both))
    assert "dice_background" not in found
    assert found["dice"] == pytest.approx(sum(dice) / 3)
    assert found["iou"] == pytest.approx(sum(iou) / 3)
    right = float(((guess == targets) & known).sum() / known.sum())
    assert found["pixel_accuracy"] == pytest.approx(right)


def test_nothing_there_and_nothing_found_is_right() -> None:
    empty = [(torch.full((1, 1, 4, 6), -1.0), torch.zeros(1, 4, 6, dtype=torch.int64))]
    assert figures(1, empty)["dice"] == figures(1, empty)["iou"] == 1.0
    none = [(torch.zeros(1, 3, 4, 6), torch.full((1, 4, 6), -1))]
    assert figures(3, none)["dice"] == 1.0


def test_predictions_and_counts() -> None:
    logits, targets = batch(4)
    assert torch.equal(predicted(logits), logits.argmax(1))
    small = torch.tensor([0.2, -0.2]).view(1, 1, 1, 2)
    assert predicted(small).tolist() == [[[1, 0]]]  # logits between 0 and 1 are logits too
    assert task().count((logits, targets)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dice_weight": -1.0}, r"task\.dice_weight is -1.0, expected 0 or more"),
        ({"dice_weight": 0.0, "cross_entropy_weight": 0.0}, "are both 0: nothing would be learnt"),
        ({"form": "iou"}, "task.form is 'iou', expected auto, isic or synapse"),
        ({"smoothing": 0.0}, r"task\.smoothing is 0.0, expected a number above 0"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentationOptions(**options)  # type: ignore[arg-type]
