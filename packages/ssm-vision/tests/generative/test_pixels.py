from __future__ import annotations

import math

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.specs import NoOptions
from ssm_vision.generative.pixel_model import PixelModel, PixelModelConfig
from ssm_vision.generative.pixels import Pixels

INFO = DataInfo((1, 3, 4), 5)


@pytest.mark.parametrize("conditional", [True, False])
def test_loss_is_the_mean_surprise_of_the_pixels(conditional: bool) -> None:
    config = PixelModelConfig(3, 8, 1, mixer_options={"d_state": 2}, conditional=conditional)
    model, task = PixelModel(config, INFO), Pixels(NoOptions(), INFO)
    images, labels = torch.randn(2, 1, 3, 4), torch.tensor([0, 4])
    loss, nats = task.loss(model, (images, labels))
    logits = model(images, labels if conditional else None).log_softmax(-1)
    levels = model.quantise(images).flatten(1)
    surprise = torch.stack(
        [-torch.stack([logits[i, t, levels[i, t]] for t in range(12)]).mean() for i in range(2)]
    )
    torch.testing.assert_close(nats, surprise.detach())
    torch.testing.assert_close(loss, surprise.mean())
    assert loss.requires_grad
    metrics = task.metrics()
    task.update(metrics, nats, (images, labels))
    bits = surprise.mean().item() / math.log(2)
    assert float(metrics.compute()["bits_per_pixel"]) == pytest.approx(bits, rel=1e-5)
    assert task.count((images, labels)) == 2
