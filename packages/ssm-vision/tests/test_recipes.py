"""Every recipe of the package: its options, its size, a few steps of training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from ssm_core import DataInfo, hookimpl, plugin_host
from ssm_core.cli import main
from ssm_core.train.checkpoint import load_weights
from ssm_core.train.folder import read_status
from ssm_core.train.loggers import read_metrics
from ssm_core.train.optim import parameter_groups
from ssm_core.train.resolve import ResolvedConfig, resolve
from ssm_core.train.run import Run
from ssm_vision.data import cifar10, digits, mnist
from ssm_vision.presets import RECIPES

#: their models draw images; tests/generative trains and draws with them
DRAWING = {"mnist-pixels", "mnist-diffusion"}
NAMES = sorted({path.stem for path in RECIPES.glob("*.yaml")} - DRAWING)
MNIST = ["mnist-bimamba", "mnist-causal", "mnist-rnn", "mnist-transformer"]
IMAGENET = [f"imagenet-vim-{size}" for size in ("tiny", "small", "base", "tiny-longseq")]
IMAGENET += ["imagenet-mambavision-t", "imagenet-vmamba-t"]
SMNIST = ["smnist-s4d", "smnist-s5"]
INFOS = {
    "digits": digits.INFO,
    "mnist": mnist.INFO,
    "cifar10": cifar10.INFO,
    "image-folder": DataInfo((3, 64, 64), 4),
    "imagenet": DataInfo((3, 64, 64), 10),
    "segmentation-folder": DataInfo((1, 128, 128), 1),
}


def resolved(recipe: str) -> ResolvedConfig:
    host = plugin_host()
    content = yaml.safe_load(host.get("recipes", recipe).path.read_text())
    return resolve(host, recipe, content)


def parameters(recipe: str) -> int:
    config = resolved(recipe)
    model = config.specs["model"].build(config.typed["model"], INFOS[config.specs["data"].name])
    return sum(p.numel() for p in model.parameters())


def test_all_promised_recipes_exist() -> None:
    assert {
        "digits-bimamba",
        "cifar10-bimamba",
        "folder-bimamba",
        "em-vmunet",
        *MNIST,
        *SMNIST,
        *IMAGENET,
    } <= set(NAMES)


@pytest.mark.parametrize("recipe", NAMES)
def test_recipe_is_registered_and_its_model_runs(recipe: str) -> None:
    config = resolved(recipe)
    assert plugin_host().get("recipes", recipe).summary
    info = INFOS[config.specs["data"].name]
    model = config.specs["model"].build(config.typed["model"], info).eval()
    with torch.no_grad():
        shape = model(torch.zeros(1, *info.input_shape)).shape
    pixels = info.input_shape[1:] if config.specs["task"].name == "segmentation" else ()
    assert shape == (1, info.n_outputs, *pixels)
    assert resolve(plugin_host(), recipe, yaml.safe_load(config.to_yaml())) == config


def test_mnist_models_have_equal_parameter_budgets() -> None:
    sizes = {recipe: parameters(recipe) for recipe in MNIST}
    assert sizes["mnist-bimamba"] == 81_866
    assert max(sizes.values()) <= 1.01 * min(sizes.values()), sizes


@pytest.mark.parametrize("recipe", [*MNIST, *SMNIST])
def test_mnist_recipes_state_their_size(recipe: str) -> None:
    stated = f"{parameters(recipe):,}".replace(",", " ")
    assert f"{stated} parameters" in plugin_host().get("recipes", recipe).summary


def test_mnist_recipes_differ_in_the_model_only() -> None:
    first = resolved(MNIST[0]).options
    for recipe in MNIST[1:]:
        options = resolved(recipe).options
        assert {k: v for k, v in options.items() if k != "model"} == {
            k: v for k, v in first.items() if k != "model"
        }
        same = set(options["model"]) - {"mixer", "mixer_options", "mlp_hidden"}
        assert {k: options["model"][k] for k in same} == {k: first["model"][k] for k in same}


@pytest.mark.parametrize("recipe", SMNIST)
def test_sequential_mnist_reads_one_pixel_a_step_without_places(recipe: str) -> None:
    config = resolved(recipe)
    model = config.specs["model"].build(config.typed["model"], mnist.INFO).eval()
    assert model.positions is None
    assert (model.rows, model.columns) == (28, 28)
    assert all(block.mixer.causal for block in model.tower.layers)
    groups = parameter_groups(model, config.typed["optim"].weight_decay)
    slow = {id(p) for group in groups if group.get("lr") == 0.004 for p in group["params"]}
    names = {name.rpartition(".")[2] for name, p in model.named_parameters() if id(p) in slow}
    state_matrix = {"A_real", "A_imag", "inv_dt"} if "s4d" in recipe else {"Lambda_re", "log_step"}
    assert state_matrix <= names
    assert not names & {"C", "D", "weight", "bias"}


@pytest.mark.parametrize("recipe", [*MNIST, *SMNIST])
def test_every_kind_of_model_learns_digits(recipe: str, tmp_path: Path) -> None:
    """The MNIST models through the whole engine, on the digits that are always there."""
    words = ["fit", recipe, "--data", "digits", "--model.patch", "2", "--optim.lr", "0.005"]
    words += ["--optim.warmup_steps", "0", "--optim.schedule", "constant"]
    words += ["--loader.batch_size", "32"]
    words += ["--trainer.max_steps", "40", "--trainer.log_every", "5", "--out", str(tmp_path)]
    assert main(words) == 0
    folder = tmp_path / f"{recipe}-001"
    losses = [value for _, value in read_metrics(folder / "metrics.csv")["train/loss"]]
    assert losses[0] > 1.9
    # S5 starts with step sizes for hundreds of steps, the digits have 16 here
    assert losses[-1] < (0.9 if recipe == "smnist-s5" else 0.8) * losses[0], losses
    assert read_status(folder)["state"] == "finished"


@pytest.mark.slow
def test_digits_recipe_is_well_on_its_way(tmp_path: Path) -> None:
    """The recipe promises 97 % in full; a third of its epochs must come near."""
    words = ["fit", "digits-bimamba", "--out", str(tmp_path), "--trainer.max_epochs", "5"]
    assert main(words) == 0
    assert read_status(tmp_path / "digits-bimamba-001")["metrics"]["eval/accuracy"] >= 0.94


class KillAt:
    """Stops a run hard after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def ssm_step_end(self, run: Run, metrics: dict[str, float]) -> None:
        if run.step == self.step:
            raise RuntimeError("killed")


def test_augmented_run_resumes_bit_for_bit(image_folder: Path, tmp_path: Path) -> None:
    """Random crops are drawn from torch's generator, whose state is part of the checkpoint."""
    words = ["fit", "folder-bimamba", "--data.root", str(image_folder), "--data.size", "16"]
    words += ["--model.d_model", "8", "--model.n_layers", "1", "--loader.num_workers", "0"]
    words += ["--loader.batch_size", "4", "--trainer.max_steps", "5"]
    words += ["--trainer.checkpoint_every", "1"]
    assert main([*words, "--out", str(tmp_path / "through")]) == 0
    killer = KillAt(3)
    plugin_host().register(killer, provider="test")
    try:
        assert main([*words, "--out", str(tmp_path / "killed")]) == 1
    finally:
        plugin_host().manager.unregister(killer)
    killed = tmp_path / "killed" / "folder-bimamba-001"
    assert not (killed / "model.safetensors").exists()
    assert main([*words, "--resume", str(killed)]) == 0
    expected = tmp_path / "through" / "folder-bimamba-001" / "model.safetensors"
    resumed, whole = load_weights(killed / "model.safetensors")[0], load_weights(expected)[0]
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
