from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError
from ssm_vision.generative.diffusion_model import DiffusionModel, DiffusionModelConfig, sinusoids

INFO = DataInfo((3, 4, 6), 5)


def small(**options: Any) -> DiffusionModel:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"patch": 2, "d_model": 8, "n_layers": 2, "refine": 4}
    defaults |= {"mixer_options": {"d_state": 2}, "mean": (0.5,), "std": (0.25,)}
    return DiffusionModel(DiffusionModelConfig(**defaults | options), INFO).eval()


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, *INFO.input_shape), torch.arange(batch) * 300 + 1


@pytest.mark.parametrize(
    ("mixer", "mixer_options"), [("bimamba", {}), ("attention", {"causal": False})]
)
def test_every_pixel_time_and_class_matters(mixer: str, mixer_options: dict[str, Any]) -> None:
    model = small(mixer=mixer, mixer_options=mixer_options)
    (x, t), labels = inputs(), torch.tensor([0, 4])
    for block in model.blocks:  # starts at 0
        torch.nn.init.normal_(block.modulate.weight, std=0.3)
    with torch.no_grad():
        y = model(x, t, labels)
        assert y.shape == x.shape
        assert not torch.allclose(model(x, t + 400, labels), y, atol=1e-4)
        assert not torch.allclose(model(x, t, labels - 1 + 2 * (labels == 0)), y, atol=1e-4)
        assert not torch.allclose(model(x, t), y, atol=1e-4)
    x.requires_grad_()
    corner = model(x, t, labels)[:, :, 0, 0].sum()
    (gradient,) = torch.autograd.grad(corner, x)
    assert (gradient.abs().amax(dim=1) > 0).all()


def test_every_parameter_learns() -> None:
    model = small().train()
    for block in model.blocks:
        torch.nn.init.normal_(block.modulate.weight, std=0.3)
    model(*inputs(8), torch.arange(8) % 5).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_classes_are_hidden_from_some_training_images() -> None:
    model, t = small(label_dropout=0.5), torch.full((400,), 7)
    labels = torch.full((400,), 3)
    with torch.no_grad():
        known, anyone = model.condition(t[:1], labels[:1]), model.condition(t[:1], None)
        hidden = (model.train().condition(t, labels) - anyone).abs().amax(dim=1) < 1e-6
        shown = (model.condition(t, labels) - known).abs().amax(dim=1) < 1e-6
    assert 150 < hidden.sum() < 250
    assert 150 < shown.sum() < 250


def test_without_classes_labels_are_ignored() -> None:
    model, (x, t) = small(conditional=False), inputs()
    torch.testing.assert_close(model(x, t, torch.tensor([1, 2])), model(x, t))


def test_images_are_scaled_to_plus_and_minus_one() -> None:
    model, unit = small(), torch.rand(2, *INFO.input_shape)
    scaled = model.scale((unit - 0.5) / 0.25)
    torch.testing.assert_close(scaled, 2 * unit - 1)
    torch.testing.assert_close(model.unscale(scaled), unit)


def test_sinusoids() -> None:
    y = sinusoids(torch.tensor([0, 1, 1000]), 6)
    for row, t in zip(y.tolist(), (0, 1, 1000), strict=True):
        angles = [t / 10_000 ** (i / 3) for i in range(3)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert row == pytest.approx(expected, abs=1e-3)


def test_errors() -> None:
    for options, message in [
        ({"patch": 0}, "patch is 0"),
        ({"patch": 4}, "model.patch is 4, expected a divisor of the image's 4 x 6 pixels"),
        ({"d_model": 7}, "d_model is 7, expected an even number"),
        ({"label_dropout": 1.0}, "label_dropout is 1.0"),
        ({"steps": 0}, "steps is 0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            small(**options)
    with pytest.raises(ConfigError, match="diffusion-model needs images"):
        DiffusionModel(DiffusionModelConfig(), DataInfo((64,), 10))
    with pytest.raises(ShapeError, match=r"DiffusionModel: images have shape \(1, 3, 6, 4\)"):
        small()(torch.zeros(1, 3, 6, 4), torch.ones(1))
