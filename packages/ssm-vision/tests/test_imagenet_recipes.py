"""The ImageNet recipes: their models and steps against the published ones, and a run of each on a
tiny folder of made-up images, with a small model, killed and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from ssm_core import DataInfo, hookimpl, plugin_host
from ssm_core.cli import main
from ssm_core.train.checkpoint import load_weights
from ssm_core.train.folder import AVERAGE, WEIGHTS, read_status
from ssm_core.train.optim import lr_factor
from ssm_core.train.resolve import ResolvedConfig, resolve
from ssm_core.train.run import Run
from ssm_vision.models import mambavision, vim, vmamba

IMAGES = 1_281_167
INFO = DataInfo((3, 224, 224), 1000)
#: recipe -> the published model, and the options that make it tiny
VIM_SMALL = ["--model.embed_dim", "16", "--model.depth", "2", "--model.patch_size", "8"]
MODELS = {
    "imagenet-vim-tiny": (vim, "vim_tiny_patch16_224"),
    "imagenet-vim-small": (vim, "vim_small_patch16_224"),
    "imagenet-vim-base": (vim, "vim_base_patch16_224"),
    "imagenet-vim-tiny-longseq": (vim, "vim_tiny_patch16_stride8_224"),
    "imagenet-mambavision-t": (mambavision, "mambavision_tiny"),
    "imagenet-vmamba-t": (vmamba, "vmamba_tiny_s1l8"),
}
OTHER_SIZES = ("imagenet-vim-small", "imagenet-vim-base")  # made tiny, the same as the first
TINY = {
    "vim": [*VIM_SMALL, "--model.stride", "8"],
    "mambavision": [
        *["--model.dim", "8", "--model.in_dim", "4", "--model.depths", "[1, 1, 2, 2]"],
        *["--model.num_heads", "[2, 2]"],
    ],
    "vmamba": ["--model.depths", "[1, 1]", "--model.dims", "[8, 16]"],
}


def resolved(recipe: str) -> ResolvedConfig:
    host = plugin_host()
    content = yaml.safe_load(host.get("recipes", recipe).path.read_text())
    return resolve(host, recipe, content)


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("recipe", MODELS)
def test_models_are_the_published_ones(recipe: str) -> None:
    config = resolved(recipe)
    module, name = MODELS[recipe]
    preset = module.PRESETS[name]
    with torch.device("meta"):
        ours = config.specs["model"].build(config.typed["model"], INFO)
        published = preset.build(preset.config, INFO)
    assert shapes(ours) == shapes(published)


@pytest.mark.parametrize(
    ("recipe", "warmup", "low", "at_low"),
    [
        ("imagenet-vim-tiny", 5, 1e-5, 0),
        ("imagenet-vim-small", 5, 1e-5, 0),
        ("imagenet-mambavision-t", 20, 5e-6, 10),
        ("imagenet-vmamba-t", 20, 1e-5, 0),
    ],
)
def test_schedules_are_the_published_ones(
    recipe: str, warmup: int, low: float, at_low: int
) -> None:
    config = resolved(recipe)
    optim, per_epoch = config.optim, IMAGES // config.loader.batch_size
    assert config.trainer.max_epochs is not None
    total = per_epoch * config.trainer.max_epochs
    factor = lr_factor(optim, total)
    assert optim.warmup_steps == warmup * per_epoch
    assert factor(optim.warmup_steps) == 1
    assert optim.lr * factor(total - at_low * per_epoch) == pytest.approx(low)
    assert optim.lr * factor(total) == pytest.approx(low)
    assert optim.lr * factor(total - (at_low + 5) * per_epoch) > 1.02 * low


class KillAt:
    """Stops a run hard after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def ssm_step_end(self, run: Run, metrics: dict[str, float]) -> None:
        if run.step == self.step:
            raise RuntimeError("killed")


def words(recipe: str, root: Path) -> list[str]:
    """A run of 2 steps: 12 images of three classes, 6 at a time."""
    model = resolved(recipe).specs["model"].name
    tiny = TINY[model]
    if recipe.endswith("longseq"):
        tiny = [*VIM_SMALL, "--model.stride", "4", "--trainer.start_from", str(root / "short")]
    return [
        *["fit", recipe, "--data.root", str(root), "--data.size", "32", *tiny],
        *["--loader.batch_size", "6", "--loader.num_workers", "0", "--optim.lr", "0.01"],
        *["--trainer.precision", "32-true", "--trainer.accelerator", "cpu"],
        *["--trainer.max_steps", "2", "--trainer.checkpoint_every", "1"],
        *["--trainer.eval_every", "2", "--trainer.log_every", "1"],
    ]


@pytest.mark.parametrize("recipe", [name for name in MODELS if name not in OTHER_SIZES])
def test_a_killed_run_resumes_bit_for_bit(
    recipe: str, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if recipe.endswith("longseq"):  # it starts from a run of the other recipe
        out = image_folder / "first"
        assert main([*words("imagenet-vim-tiny", image_folder), "--out", str(out)]) == 0
        (out / "imagenet-vim-tiny-001").rename(image_folder / "short")
    command = words(recipe, image_folder)
    assert main([*command, "--out", str(image_folder / "whole")]) == 0
    killer = KillAt(2)
    plugin_host().register(killer, provider="test")
    try:
        assert main([*command, "--out", str(image_folder / "killed")]) == 1
    finally:
        plugin_host().manager.unregister(killer)
    killed = image_folder / "killed" / f"{recipe}-001"
    assert not (killed / WEIGHTS).exists()
    assert main([*command, "--resume", str(killed)]) == 0
    whole = image_folder / "whole" / f"{recipe}-001"
    for name in (WEIGHTS, AVERAGE):
        first, second = load_weights(whole / name)[0], load_weights(killed / name)[0]
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    metrics = read_status(whole)["metrics"]
    assert {"eval/accuracy", "eval_ema/accuracy", "eval/loss", "eval_ema/loss"} <= set(metrics)
    said = capsys.readouterr().err.count("starting from")
    assert said == (2 if recipe.endswith("longseq") else 0)  # not when it is resumed


def test_longseq_needs_a_trained_model(
    image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(image_folder / "runs")]
    assert main([*words("imagenet-vim-tiny-longseq", image_folder), *out]) == 2
    assert f"{image_folder}/short: no such file" in capsys.readouterr().err
