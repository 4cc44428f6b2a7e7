from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from vmunet_reference import moved, reference_vmunet

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError
from ssm_vision.models.vmunet import PRESETS, VMUNet
from ssm_vision.models.vmunet_config import VMUNetConfig


def small(classes: int = 3, channels: int = 3, **options: Any) -> VMUNet:
    sizes = {"dims": (16, 32, 64, 128), "depths": (1, 1, 2, 1), "depths_decoder": (1, 2, 1, 1)}
    return VMUNet(VMUNetConfig(**(sizes | options)), DataInfo((channels, 64, 64), classes))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (64, 96)),
        ({"dims": (16, 24), "depths": (2, 1), "depths_decoder": (1, 2), "d_state": 3}, (24, 16)),
        ({"dims": (16,), "depths": (1,), "depths_decoder": (1,), "dt_rank": 3}, (8, 4)),
    ],
)
def test_is_what_the_equations_say(options: dict[str, Any], size: tuple[int, int]) -> None:
    model = small(**options).double().eval()
    weights = moved(dict(model.state_dict()))
    model.load_state_dict(weights)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        y = model(images)
    depths, depths_up = list(model.config.depths), list(model.config.depths_decoder)
    expected = reference_vmunet(weights, images, depths, depths_up)
    assert expected.std() > 0.05
    torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("preset", "classes", "parameters", "entries"),
    [
        ("vmunet", 1, 44_273_833, 417),
        ("vmunet_small", 1, 27_427_561, 222),
        ("vmunet_small", 9, 27_427_761, 222),
    ],
)
def test_published_sizes(preset: str, classes: int, parameters: int, entries: int) -> None:
    chosen = PRESETS[preset]
    assert (chosen.image_size, chosen.num_classes) == (256, 1)
    with torch.device("meta"):
        model = chosen.build(chosen.config, DataInfo((3, 256, 256), classes))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries


def test_initial_values() -> None:
    model = small(dims=(32, 64, 128, 256))
    for name, value in model.state_dict().items():
        last = name.rpartition(".")[2]
        if any(part in name for part in ("in_proj", "out_proj", "reduction", "expand")):
            assert float(value.std()) == pytest.approx(0.02, rel=0.1), name
        elif "norm" in name or "ln_1" in name:
            assert torch.equal(value, torch.full_like(value, float(last == "weight"))), name
        elif last == "dt_projs_bias":
            steps = torch.nn.functional.softplus(value)
            assert 0.9e-3 < float(steps.min()) < float(steps.max()) < 0.11
    weights = model.state_dict()
    for name, fan_in in (("patch_embed.proj", 48), ("final_conv", 8)):
        greatest = float(weights[f"{name}.weight"].abs().max())
        assert 0.7 * fan_in**-0.5 < greatest <= fan_in**-0.5


def test_drop_path_grows_down_and_falls_on_the_way_up() -> None:
    model = small(drop_path=0.4)
    down = [block.drop_path.rate for level in model.layers for block in level.blocks]
    up = [block.drop_path.rate for level in model.layers_up for block in level.blocks]
    assert down == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert up == pytest.approx([0.4, 0.3, 0.2, 0.1, 0])


def test_nothing_is_exempt_from_weight_decay_as_published() -> None:
    assert small().no_weight_decay() == set()


@pytest.mark.parametrize("size", [(33, 64), (31, 5), (65, 97), (1, 1)])
def test_other_sizes_are_filled_up_by_their_mirror_image(size: tuple[int, int]) -> None:
    model = small().eval()
    model.load_state_dict(moved(dict(model.state_dict())))
    images = torch.randn(1, 3, *size)
    wanted = [32 * math.ceil(n / 32) for n in size]
    filled = images
    for axis in (2, 3):
        while filled.shape[axis] < wanted[axis - 2]:  # one more mirror image at a time
            there = filled.shape[axis]
            place = there % max(2 * (size[axis - 2] - 1), 1)
            place = min(place, 2 * (size[axis - 2] - 1) - place)
            filled = torch.cat([filled, filled.narrow(axis, place, 1)], axis)
    with torch.no_grad():
        y = model(images)
        assert y.shape == (1, 3, *size)
        torch.testing.assert_close(y, model(filled)[:, :, : size[0], : size[1]])


def test_grey_images_serve_as_three_channels() -> None:
    model, grey = small().eval(), torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(grey), model(grey.repeat(1, 3, 1, 1)))
        assert small(channels=1).eval()(grey).shape == (2, 3, 32, 32)
        with pytest.raises(ShapeError, match="c = 1 channels"):
            small(channels=1)(grey.repeat(1, 3, 1, 1))


def test_the_maps_are_the_encoders() -> None:
    model = small().eval()
    with torch.no_grad():
        maps = model.feature_maps(torch.randn(2, 3, 70, 40), [3, 0])
        assert model.feature_maps(torch.randn(2, 3, 70, 40), []) == []
    assert [tuple(x.shape) for x in maps] == [(2, 128, 3, 2), (2, 16, 18, 10)]
    assert [stage.stride for stage in model.stages] == [4, 8, 16, 32]


def test_other_mixers_keep_their_initial_values() -> None:
    model = small(mixer="mamba", mixer_options={"d_state": 4})
    mixer = model.layers[0].blocks[0].self_attention.layer
    assert float(torch.nn.functional.softplus(mixer.dt_proj.bias.detach()).max()) < 0.11
    assert float(mixer.in_proj.weight.detach().std()) > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 1)}, "VMUNetConfig: dims is .* a number of each for every stage"),
        ({"dims": (), "depths": (), "depths_decoder": ()}, "a number of each for every stage"),
        ({"dims": (16, 0, 1, 1)}, "dims is 0, expected an integer of at least 1"),
        ({"depths_decoder": (1, 1, 1, 0)}, "depths_decoder is 0, expected"),
        ({"patch_size": 3}, r"patch_size is 3, expected a divisor of dims\[0\] = 16"),
        ({"patch_size": 0}, "patch_size is 0, expected an integer"),
        ({"drop_path": 1.0}, "drop_path is 1.0, expected a number in"),
        ({"d_state": 0}, "d_state is 0"),
        ({"mixer_options": {"d_state": 4}}, "expected none without a mixer"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        small(**options)
    assert "\n" not in str(caught.value)


def vmamba_tensors(new_names: bool) -> dict[str, torch.Tensor]:
    """A made-up VMamba with a deeper third stage and a classifier."""
    tensors = {}
    for name, value in small(depths=(1, 1, 4, 1)).state_dict().items():
        if not name.startswith(("layers_up", "final")):
            tensors[name] = torch.randn_like(value)
    if new_names:
        words = {"patch_embed.proj": "patch_embed.0", "patch_embed.norm": "patch_embed.2"}
        words |= {".ln_1.": ".norm.", ".self_attention.": ".op."}
        for old, new in words.items():
            tensors = {name.replace(old, new): value for name, value in tensors.items()}
    head = "classifier.head" if new_names else "head"
    return tensors | {f"{head}.weight": torch.randn(10, 128), f"{head}.bias": torch.randn(10)}


@pytest.mark.parametrize("new_names", [False, True])
def test_weights_of_a_vmamba_to_start_from(new_names: bool) -> None:
    model = small()
    given = vmamba_tensors(new_names)
    fitting = model.adapt(given)
    assert set(fitting) <= set(model.state_dict())
    left = set(model.state_dict()) - set(fitting)
    ups = ("layers_up.1.upsample", "layers_up.2.upsample", "layers_up.3.upsample")
    assert all(name.startswith((*ups, "final_up", "final_conv")) for name in left)
    old = dict(zip(vmamba_tensors(False), given.values(), strict=True))
    for name, value in fitting.items():
        if name.startswith("layers_up."):
            stage = int(name.split(".")[1])
            name = name.replace(f"layers_up.{stage}", f"layers.{3 - stage}", 1)
        assert torch.equal(value, old[name]), name
    model.load_state_dict(fitting, strict=False)


def test_weights_for_grey_images_add_up_the_colours() -> None:
    model = small(channels=1).eval()
    colour = small().eval()
    model.load_state_dict(model.adapt(dict(colour.state_dict())))
    grey = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(grey), colour(grey), rtol=1e-4, atol=1e-5)


def test_weights_of_a_vmunet_to_start_from() -> None:
    model, other = small(classes=5), small()
    tensors = {f"vmunet.{name}": value for name, value in other.state_dict().items()}
    fitting = model.adapt(tensors)
    assert set(model.state_dict()) - set(fitting) == {"final_conv.weight", "final_conv.bias"}
    assert torch.equal(fitting["final_up.expand.weight"], other.final_up.expand.weight)
    assert set(small().adapt(tensors)) == set(other.state_dict())
    wrong = {"layers.0.blocks.0.ln_1.weight": torch.zeros(7)}
    assert model.adapt(wrong)["layers.0.blocks.0.ln_1.weight"].shape == (7,)  # for the loader


def test_every_part_matters() -> None:
    """No weight could be dropped or exchanged without a difference in some logit."""
    model = small().double().eval()
    model.load_state_dict(moved(dict(model.state_dict())))
    images = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    model(images).square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.parameters())
