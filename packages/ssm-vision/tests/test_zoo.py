"""Models by name: options, sizes, errors and weights."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toy_model import PRESETS, Toy

from ssm_core.errors import CheckpointError, ConfigError, UnknownNameError
from ssm_vision import create_model, families, list_models, zoo
from ssm_vision.models.registry import BASELINES, FAMILIES


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A family of models that take no time."""
    monkeypatch.setattr(zoo, "FAMILIES", {**FAMILIES, "toy": PRESETS})
    zoo._family_of.cache_clear()
    yield
    zoo._family_of.cache_clear()


def test_no_name_is_taken_twice() -> None:
    names = [name for group in {**FAMILIES, **BASELINES}.values() for name in group]
    assert len(names) == len(set(names))
    assert set(names) < set(list_models())


def test_names_by_pattern_and_family() -> None:
    assert list_models() == sorted(list_models())
    assert [n for family in families() for n in list_models(family=family)] != []
    assert list_models("resnet*", family="baselines") == [
        "resnet101", "resnet152", "resnet18", "resnet50",
    ]  # fmt: skip
    assert list_models("nothing*") == []
    with pytest.raises(UnknownNameError, match="unknown family 'baseline': did you mean 'baselin"):
        list_models(family="baseline")


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown model 'mnist_bimanba': did you mean 'mnist_bim"
    ):
        create_model("mnist_bimanba")


@pytest.mark.usefixtures("toy")
class TestOptions:
    def test_as_published(self) -> None:
        model = create_model("toy_wide")
        assert isinstance(model, Toy)
        assert model.training
        assert model.config is PRESETS["toy_wide"].config
        assert (model.in_chans, model.image_size, model.num_classes) == (3, (16, 16), 10)

    def test_sizes(self) -> None:
        model = create_model("toy_small", num_classes=3, in_chans=1, img_size=(8, 24))
        assert model(torch.zeros(2, 1, 8, 24)).shape == (2, 3)
        assert create_model("toy_small", img_size=32).image_size == (32, 32)
        features = create_model("toy_small", num_classes=0)
        assert features(torch.zeros(2, 3, 16, 16)).shape == (2, 16)

    def test_overrides(self) -> None:
        model = create_model("toy_small", width=2, depths=[2, 1], drop_path=1)
        assert (model.config.width, tuple(model.config.depths)) == (2, (2, 1))
        assert model.config.drop_path == 1.0
        nested = create_model("toy_small", mixer_options={"d_state": 4})
        dotted = create_model("toy_small", **{"mixer_options.d_state": 4})
        assert nested.config.mixer_options == dotted.config.mixer_options == {"d_state": 4}
        assert PRESETS["toy_small"].config.mixer_options == {}

    def test_unknown_options_name_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match=r"option of toy_small 'widht': .* 'width'"):
            create_model("toy_small", widht=3)
        with pytest.raises(UnknownNameError, match="'num_clases': did you mean 'num_classes'"):
            create_model("toy_small", num_clases=3)
        with pytest.raises(ConfigError, match=r"width.size is set, but width is 4 and no mapping"):
            create_model("toy_small", **{"width.size": 3})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"width": "wide"}, "toy_small.width"),
            ({"width": 0}, "model.width is 0, expected 1 or more"),
            ({"num_classes": -1}, "toy_small: num_classes is -1, expected 0 or more"),
            ({"in_chans": 0}, "toy_small: in_chans is 0, expected 1 or more"),
            ({"img_size": 0}, r"toy_small: img_size is 0, expected pixels or \(rows, columns\)"),
            ({"img_size": (8, 8, 8)}, r"toy_small: img_size is \(8, 8, 8\)"),
            ({"img_size": ("a", "b")}, "toy_small: img_size is"),
        ],
    )
    def test_values_that_cannot_be_used(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            create_model("toy_small", **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    def test_no_weights_in_the_package(self) -> None:
        with pytest.raises(CheckpointError, match="no weights come with the package; pass checkp"):
            create_model("toy_small", pretrained=True)
        with pytest.raises(ConfigError, match="cannot be changed together with pretrained=True"):
            create_model("toy_small", pretrained=True, checkpoint="x.pth")


@pytest.mark.usefixtures("toy")
class TestCheckpoint:
    def test_as_trained(self, tmp_path: Path) -> None:
        trained = create_model("toy_small")
        save_file(trained.state_dict(), tmp_path / "w.safetensors")
        model = create_model("toy_small", checkpoint=tmp_path / "w.safetensors")
        assert not model.training
        images = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(model(images), trained.eval()(images), rtol=0, atol=0)
        bare = create_model("toy_small", checkpoint=tmp_path / "w.safetensors", num_classes=0)
        expected = trained.forward_head(trained.forward_features(images), pre_logits=True)
        torch.testing.assert_close(bare(images), expected)

    def test_of_another_size(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        trained = create_model("toy_small")
        torch.save(
            {"model": trained.state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "w.pth"
        )
        with caplog.at_level(logging.WARNING):
            larger = create_model("toy_small", checkpoint=tmp_path / "w.pth", img_size=32)
        assert larger.pos_embed.shape[2:] == (16, 16)
        torch.testing.assert_close(larger.head.weight, trained.head.weight)
        assert caplog.text == ""
        with caplog.at_level(logging.WARNING):
            other = create_model("toy_small", checkpoint=tmp_path / "w.pth", num_classes=3)
        torch.testing.assert_close(other.patch_embed.weight, trained.patch_embed.weight)
        (line,) = caplog.messages
        assert line.startswith("toy_small: the checkpoint's head does not fit: head.weight, head.b")

    def test_every_name_that_does_not_match(self, tmp_path: Path) -> None:
        tensors = create_model("toy_small").state_dict()
        tensors["extra"] = tensors.pop("norm.weight")
        tensors["head.bias"] = torch.zeros(7)
        torch.save(tensors, tmp_path / "w.pt")
        with pytest.raises(CheckpointError) as caught:
            create_model("toy_small", checkpoint=tmp_path / "w.pt")
        for part in ("missing norm.weight", "unexpected extra", "head.bias has shape (7,), expect"):
            assert part in str(caught.value)
        with pytest.raises(CheckpointError, match=r"patch_embed\.weight has shape"):
            create_model("toy_small", checkpoint=tmp_path / "w.pt", in_chans=1)
        with pytest.raises(CheckpointError, match=r"missing norm\.weight"):
            create_model("toy_small", checkpoint=tmp_path / "w.pt", num_classes=3)


#: number of parameters as published, of models small enough to be built here
PARAMETERS = {
    "vim_tiny_patch16_224": 7_148_008,
    "vim_small_patch16_224": 25_796_584,
    "vim_base_patch16_224": 97_598_440,
    "vim_tiny_patch16_stride8_224": 7_250_344,
    "vim_small_patch16_stride8_224": 26_001_256,
    "vmunet": 44_273_833,
}
NAMES = [
    *PARAMETERS,
    *(f"mambavision_{size}" for size in ("tiny", "tiny2", "small", "base", "large", "large2")),
    *(f"vanilla_vmamba_{size}" for size in ("tiny", "small", "base")),
    *("vmamba_tiny_s1l8", "vmamba_small_s1l20", "vmamba_base_s1l20"),
    *("vmamba_tiny_s2l5", "vmamba_small_s2l15", "vmamba_base_s2l15"),
    "s4nd_vit_base",
]


def test_the_names_of_the_literature() -> None:
    assert set(NAMES) <= set(list_models())


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_as_published(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


SMALL: dict[str, dict[str, object]] = {
    "vim_tiny_patch16_224": {"embed_dim": 16, "depth": 2, "img_size": 64},
    "mambavision_tiny": {"dim": 16, "in_dim": 8, "depths": (1, 1, 2, 2), "num_heads": [2, 2]},
    "vmamba_tiny_s1l8": {"dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "vmunet": {"dims": [16, 32], "depths": [1, 1], "depths_decoder": [1, 1]},
    "s4nd_vit_base": {"d_model": 16, "n_layers": 2, "mixer_options": {"d_state": 4}},
}


@pytest.mark.parametrize("name", SMALL)
def test_overrides_weights_and_layers_of_every_family(name: str, tmp_path: Path) -> None:
    options = SMALL[name]
    model = create_model(name, num_classes=3, **options)  # type: ignore[arg-type]
    images = torch.randn(1, 3, 64, 64)
    y = model.eval()(images)
    assert y.shape[1] == 3
    wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 1, "model": wrapped}, tmp_path / "w.pth")
    path = tmp_path / "w.pth"
    again = create_model(name, num_classes=3, checkpoint=path, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(again(images), y)
    other = create_model(name, num_classes=7, checkpoint=path, **options)  # type: ignore[arg-type]
    head = {id(p) for p in other.get_classifier().parameters()}
    for key, parameter in other.named_parameters():
        if id(parameter) not in head:
            torch.testing.assert_close(parameter, model.get_parameter(key), rtol=0, atol=0)
    layer = model.group_matcher()
    layers = {key: layer(key) for key, _ in model.named_parameters()}
    last = max(layers.values())
    own_head = {id(p) for p in model.get_classifier().parameters()}
    assert {k for k, v in layers.items() if v == last} == {
        k for k, p in model.named_parameters() if id(p) in own_head
    }
    assert set(layers.values()) == set(range(last + 1))
    assert {v for k, v in layers.items() if k.startswith(("patch_embed", "pos_embed"))} == {0}


def test_official_names_of_another_release(tmp_path: Path) -> None:
    options = SMALL["vmunet"]
    model = create_model("vmunet", **options)  # type: ignore[arg-type]
    torch.save({f"vmunet.{k}": v for k, v in model.state_dict().items()}, tmp_path / "w.pth")
    again = create_model("vmunet", checkpoint=tmp_path / "w.pth", **options)  # type: ignore[arg-type]
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(again(images), model.eval()(images))
