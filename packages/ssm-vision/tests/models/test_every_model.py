"""What every image model promises: sizes, batches, types, errors, maps, half precision."""

from __future__ import annotations

import pytest
import torch
from model_cases import CASES, INFO, Case

from ssm_core.errors import ConfigError
from ssm_kernels.errors import DTypeError, ShapeError
from ssm_vision.models.image_model import ImageModel

every_model = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def built(case: Case) -> ImageModel:
    torch.manual_seed(0)
    return case.build(INFO)


@every_model
def test_any_size_and_batch(case: Case) -> None:
    model = built(case).eval()
    with torch.no_grad():
        for height, width in case.sizes:
            images = torch.randn(3, 3, height, width)
            y = model(images)
            assert y.shape[0] == 3
            assert y.isfinite().all()
            torch.testing.assert_close(model(images[:1]), y[:1], rtol=1e-4, atol=1e-5)
            assert model(images[:0]).shape == (0, *y.shape[1:])


@every_model
def test_bytes_are_fractions_of_255(case: Case) -> None:
    model = built(case).eval()
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(model(images), model(images / 255))


@every_model
def test_wrong_images_end_in_one_line(case: Case) -> None:
    model = built(case)
    name = type(model).__name__
    for shape in [(2, 4, 32, 32), (3, 32, 32), (2, 32, 32, 3)]:
        with pytest.raises(ShapeError, match=rf"{name}: images have shape .* c = 3") as caught:
            model(torch.zeros(shape))
        assert "\n" not in str(caught.value)
    if case.least > 1:
        small = torch.zeros(1, 3, 32, case.least - 1)
        with pytest.raises(ShapeError, match=f"at least {case.least} x {case.least}"):
            model(small)
    with pytest.raises(DTypeError, match=f"{name}: images are torch.int64"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.int64))


@every_model
def test_data_that_are_no_images(case: Case) -> None:
    with pytest.raises(ConfigError, match="needs images"):
        case.build(type(INFO)(input_shape=(64,), n_outputs=5))


@every_model
def test_feature_maps_of_every_stage(case: Case) -> None:
    model = built(case).eval()
    height, width = case.sizes[-1]
    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        maps = model.forward_intermediates(images, intermediates_only=True)
        last = model.forward_intermediates(images, indices=[-1], intermediates_only=True)
        features, again = model.forward_intermediates(images, indices=1)
        torch.testing.assert_close(features, model.forward_features(images))
    assert len(maps) == len(model.stages)
    for stage, feature_map in zip(model.stages, maps, strict=True):
        assert feature_map.shape[:2] == (2, stage.channels)
        for pixels, rows in zip((height, width), feature_map.shape[2:], strict=True):
            # one less than whole strides: overlapping patches without padding at the edges
            assert pixels // stage.stride - 1 <= rows <= -(-pixels // stage.stride) + 1
        model.get_submodule(stage.name)
    torch.testing.assert_close(last[0], maps[-1])
    torch.testing.assert_close(again[0], maps[-1])
    if model.hierarchical:
        sizes = [feature_map.shape[2] for feature_map in maps]
        assert sizes == sorted(set(sizes), reverse=True)
    with pytest.raises(ConfigError, match="stages"):
        model.forward_intermediates(images, indices=[99])


@every_model
def test_another_classifier(case: Case) -> None:
    model = built(case).eval()
    images = torch.randn(2, 3, 32, 32)
    model.reset_classifier(7)
    assert model.num_classes == 7
    assert model(images).shape[1] == 7
    model.reset_classifier(0)
    y = model(images)
    assert y.shape[1] == model.num_features
    features = model.forward_features(images)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), y)


@every_model
def test_every_parameter_learns_in_half_precision(case: Case) -> None:
    """Forward and backward under bfloat16 autocast: finite, and near float32."""
    model = built(case).train()
    images = torch.randn(4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(images).float().square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        full = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images).float()
    assert (half - full).norm() <= 0.1 * full.norm() + 0.01


@every_model
def test_less_memory_same_gradients(case: Case) -> None:
    model = built(case).train()
    for part in model.modules():  # randomness and running means would differ between two calls
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm | torch.nn.Dropout):
            part.eval()
        if hasattr(part, "rate"):
            part.rate = 0.0
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])
