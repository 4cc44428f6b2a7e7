from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_vision import Classification, ClassificationOptions


def task(smoothing: float = 0.0) -> Classification:
    return Classification(ClassificationOptions(smoothing), DataInfo((4,), 3))


def test_loss_is_the_cross_entropy() -> None:
    model, batch = nn.Linear(4, 3), (torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
    loss, logits = task().loss(model, batch)
    torch.testing.assert_close(logits, model(batch[0]))
    likelihoods = logits.log_softmax(1)[range(5), batch[1]]
    torch.testing.assert_close(loss, -likelihoods.mean())


def test_labels_are_smoothed_in_training_only() -> None:
    model, batch = nn.Linear(4, 3), (torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))
    smoothed = F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.3)
    torch.testing.assert_close(task(0.3).loss(model, batch)[0], smoothed)
    torch.testing.assert_close(task(0.3).loss(model.eval(), batch)[0], task().loss(model, batch)[0])


def test_accuracy_counts_examples_not_classes() -> None:
    metrics = task().metrics()
    outputs = F.one_hot(torch.tensor([0, 0, 0, 1, 2]), 3).float()
    task().update(metrics, outputs, (None, torch.tensor([0, 0, 0, 2, 2])))
    assert float(metrics.compute()["accuracy"]) == pytest.approx(4 / 5)
    assert Classification.monitor == "accuracy"
    assert Classification.higher_is_better


def test_bad_smoothing() -> None:
    with pytest.raises(ConfigError, match=r"task.label_smoothing is 1.0, expected a number in"):
        ClassificationOptions(1.0)


class Pixels(nn.Module):
    """The image itself as logits, and what it was given."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return images.flatten(1)


def mixing_task(**options: float) -> Classification:
    return Classification(ClassificationOptions(**options), DataInfo((1, 2, 4), 8))


def test_images_are_mixed_in_training_only() -> None:
    model, images, labels = Pixels(), torch.randn(6, 1, 2, 4), torch.arange(6)
    mixed = mixing_task(mixup=0.8, label_smoothing=0.2)
    loss, logits = mixed.loss(model, (images, labels))
    assert not torch.equal(model.seen, images)
    # the loss of soft targets, written out: -sum of smoothed share times log-likelihood
    share = ((model.seen - images.flip(0)) / (images - images.flip(0))).mean()
    own = F.one_hot(labels, 8).float()
    targets = (own * share + own.flip(0) * (1 - share)) * 0.8 + 0.2 / 8
    torch.testing.assert_close(loss, -(targets * logits.log_softmax(1)).sum(1).mean())
    model.eval()
    plain, _ = mixed.loss(model, (images, labels))
    assert model.seen is images
    torch.testing.assert_close(plain, F.cross_entropy(images.flatten(1), labels))


def test_without_mixing_nothing_is_drawn() -> None:
    before = torch.get_rng_state()
    mixing_task(label_smoothing=0.1).loss(Pixels(), (torch.randn(2, 1, 2, 4), torch.arange(2)))
    torch.set_rng_state(before)
    torch.randn(2, 1, 2, 4)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    mixing_task(label_smoothing=0.1).loss(Pixels(), (torch.randn(2, 1, 2, 4), torch.arange(2)))
    assert torch.equal(torch.get_rng_state(), after)


def test_top5_with_more_than_five_classes() -> None:
    task_of_8 = mixing_task()
    metrics = task_of_8.metrics()
    logits = torch.arange(8.0).repeat(4, 1)  # the best five are 3..7
    task_of_8.update(metrics, logits, (None, torch.tensor([7, 3, 2, 0])))
    values = {name: float(value) for name, value in metrics.compute().items()}
    assert values == {"accuracy": 0.25, "accuracy_top5": 0.5}
    assert set(Classification(ClassificationOptions(), DataInfo((4,), 5)).metrics()) == {"accuracy"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": -1.0}, r"task.mixup is -1.0, expected 0 or more"),
        ({"cutmix": float("inf")}, r"task.cutmix is inf, expected 0 or more"),
        ({"mix_probability": 1.5}, r"task.mix_probability is 1.5, expected a number from 0 to 1"),
        ({"switch_probability": -0.1}, r"task.switch_probability is -0.1, expected a number"),
    ],
)
def test_bad_mixing(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassificationOptions(**options)


def test_mixing_needs_images() -> None:
    with pytest.raises(ConfigError, match=r"need images \(c, y, x\), this data set gives \(4,\)"):
        Classification(ClassificationOptions(mixup=0.8), DataInfo((4,), 3))
