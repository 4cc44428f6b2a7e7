from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from ssm_text.data.windows import IGNORED
from ssm_text.task import LanguageModel


class Table(torch.nn.Module):
    """Logits that depend on the current token alone."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        values = torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0))
        self.weight = torch.nn.Parameter(values)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids]


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    made = []
    for b, padded in ((3, 0), (1, 0), (2, 4)):
        ids = torch.randint(5, (b, 6), generator=generator)
        targets = torch.randint(5, (b, 6), generator=generator)
        if padded:
            targets[-1, -padded:] = IGNORED
        made.append((ids, targets))
    return made


def test_loss_is_mean_cross_entropy(batches):
    model, task = Table(5), LanguageModel()
    for ids, targets in batches:
        loss, _ = task.loss(model, (ids, targets))
        kept = targets != IGNORED
        torch.testing.assert_close(loss, F.cross_entropy(model(ids)[kept], targets[kept]))
        assert task.count((ids, targets)) == int(kept.sum())


def test_padding_has_no_gradient(batches):
    model, task = Table(5), LanguageModel()
    ids, targets = batches[-1]
    kept = targets != IGNORED
    (ours,) = torch.autograd.grad(task.loss(model, (ids, targets))[0], model.weight)
    expected = F.cross_entropy(model(ids[kept]), targets[kept])
    torch.testing.assert_close(ours, *torch.autograd.grad(expected, model.weight))


def test_metrics_of_several_batches(batches):
    model, task = Table(5), LanguageModel()
    metrics = task.metrics()
    for batch in batches:
        task.update(metrics, task.loss(model, batch)[1], batch)
    values = metrics.compute()
    ids = torch.cat([b[0] for b in batches])
    targets = torch.cat([b[1] for b in batches])
    kept = targets != IGNORED
    logits, targets = model(ids)[kept], targets[kept]
    bits = F.cross_entropy(logits, targets) / math.log(2)
    assert values["bits_per_token"].item() == pytest.approx(bits.item(), rel=1e-5)
    hits = (logits.argmax(-1) == targets).float().mean()
    assert 0 < hits < 1
    assert values["accuracy"].item() == pytest.approx(hits.item(), rel=1e-6)


def test_outputs_carry_no_graph(batches):
    loss, outputs = LanguageModel().loss(Table(5), batches[0])
    assert loss.requires_grad
    assert not outputs.requires_grad
    assert outputs.shape == (2, 3, 6)


def test_nan_shows_in_the_metrics(batches):
    model, task = Table(5), LanguageModel()
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    metrics = task.metrics()
    loss, outputs = task.loss(model, batches[0])
    task.update(metrics, outputs, batches[0])
    assert loss.isnan()
    assert metrics.compute()["bits_per_token"].isnan()


def test_half_precision_logits_are_summed_in_float32(batches):
    model = Table(5).bfloat16()
    loss, outputs = LanguageModel().loss(model, batches[0])
    assert loss.dtype == outputs.dtype == torch.float32


def test_no_targets_at_all():
    ids = torch.zeros(1, 3, dtype=torch.int64)
    batch = ids, torch.full_like(ids, IGNORED)
    loss, _ = LanguageModel().loss(Table(5), batch)
    assert loss.item() == 0
    assert LanguageModel().count(batch) == 0


def test_monitors_the_loss():
    assert (LanguageModel.monitor, LanguageModel.higher_is_better) == ("loss", False)
