from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ssm_core.errors import CheckpointError, ConfigError
from ssm_vision import create_model, list_models
from ssm_vision import pretrained as weights_files
from ssm_vision.presets import PRESETS, recipe_options, save_pretrained


@pytest.fixture
def own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the package keep its weights in an empty folder."""
    monkeypatch.setattr(weights_files, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", PRESETS)
def test_models_are_those_of_the_recipes(name: str) -> None:
    model = create_model(name)
    options = recipe_options(PRESETS[name][0])
    assert {key: getattr(model.config, key) for key in options} == options
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert model.training


def test_the_list() -> None:
    names = ["mnist_bimamba", "mnist_causal", "mnist_rnn", "mnist_transformer"]
    assert list_models("mnist_*") == list_models(family="mnist") == names


def test_options_replace_those_of_the_recipe() -> None:
    model = create_model("mnist_bimamba", d_model=8, mixer_options={"d_state": 2})
    assert (model.config.d_model, model.config.patch) == (8, 4)
    assert model.tower.layers[0].mixer.A_log.shape == (16, 2)


def test_other_images_and_classes() -> None:
    model = create_model("mnist_rnn", num_classes=3, in_chans=2, img_size=(8, 12))
    assert model(torch.zeros(2, 2, 8, 12)).shape == (2, 3)
    with pytest.raises(ConfigError, match=r"mnist_rnn: num_classes is 0, expected 1 or more"):
        create_model("mnist_rnn", num_classes=0)


def test_options_and_pretrained_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="cannot be changed together with pretrained=True"):
        create_model("mnist_rnn", pretrained=True, d_model=8)


def test_pretrained_weights_come_back(own_weights: Path) -> None:
    trained = create_model("mnist_rnn")
    path = save_pretrained("mnist_rnn", trained, {"accuracy": 0.5, "seed": 3})
    assert path == own_weights / "mnist_rnn.safetensors"
    assert path.stat().st_size < 1_000_000
    model = create_model("mnist_rnn", pretrained=True)
    assert not model.training
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(model(images), trained.eval()(images), rtol=0, atol=0)
    figures = weights_files.load_into(create_model("mnist_rnn"), path, "mnist-rnn")
    assert figures == {"accuracy": 0.5, "seed": 3}


def test_missing_weights_say_how_to_train_them(own_weights: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        create_model("mnist_causal", pretrained=True)
    assert str(caught.value).startswith(f"{own_weights}/mnist_causal.safetensors: no such weights")
    assert "`ssm-train fit mnist-causal`" in str(caught.value)


def test_weights_of_other_options_are_refused(own_weights: Path) -> None:
    with pytest.raises(ConfigError, match="are not those of the recipe mnist-rnn"):
        save_pretrained("mnist_rnn", create_model("mnist_bimamba"), {})
    other = create_model("mnist_bimamba", dropout=0.5)
    weights_files.save(other, own_weights / "mnist_bimamba.safetensors", "mnist-bimamba", {})
    with pytest.raises(CheckpointError, match="trained with another dropout than the recipe"):
        create_model("mnist_bimamba", pretrained=True)


def test_weights_from_before_an_option_existed_still_load(own_weights: Path) -> None:
    from ssm_core.train.checkpoint import load_weights
    from ssm_core.train.checkpoint import save_weights as save_any

    trained = create_model("mnist_rnn")
    path = save_pretrained("mnist_rnn", trained, {})
    metadata = load_weights(path)[1]
    options = json.loads(metadata["model"])
    del options["pool"]  # as if it had been added later, with its default
    save_any(path, trained, metadata | {"model": json.dumps(options)})
    loaded = create_model("mnist_rnn", pretrained=True)
    assert torch.equal(loaded.head.weight, trained.head.weight)


def test_damaged_weights_are_refused(own_weights: Path) -> None:
    path = save_pretrained("mnist_rnn", create_model("mnist_rnn"), {})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=f"{path}: damaged"):
        create_model("mnist_rnn", pretrained=True)


def test_a_file_of_somebody_else_is_refused(own_weights: Path) -> None:
    from safetensors.torch import save_file

    path = own_weights / "mnist_rnn.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="carries no model options or figures"):
        create_model("mnist_rnn", pretrained=True)


@pytest.mark.parametrize("name", PRESETS)
def test_packaged_weights_keep_their_promise(name: str, data_root: Path) -> None:
    """The weights in the package reach the accuracy stored with them, on the first test images."""
    from ssm_vision.data import mnist

    path = weights_files.path_of(name)
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the package yet (tools/reproduce/mnist.py)")
    if not (data_root / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {data_root} (SSM_DATA_ROOT)")
    figures = weights_files.load_into(create_model(name), path, PRESETS[name][0])
    bundle = mnist.build(mnist.MnistOptions(root=str(data_root), download=False))
    images, labels = bundle.evaluation.__getitems__(range(1000))
    with torch.no_grad():
        right = create_model(name, pretrained=True)(images).argmax(1) == labels
    # 1000 of the 10 000 images: at 97 % three standard deviations are 1.6 points
    assert float(right.float().mean()) > figures["accuracy"] - 0.03
