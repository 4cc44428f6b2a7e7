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
