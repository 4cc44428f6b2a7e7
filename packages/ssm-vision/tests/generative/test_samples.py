"""Both recipes through the engine on small digits: trained, killed and resumed, drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ssm_core import hookimpl, plugin_host
from ssm_core.cli import main
from ssm_core.errors import ConfigError
from ssm_core.train.checkpoint import load_weights
from ssm_core.train.folder import read_status
from ssm_core.train.resolve import resolve
from ssm_core.train.run import Run
from ssm_vision.data import digits, mnist
from ssm_vision.generative.samples import SampleOptions, as_grid, run_samples

WORDS = {
    "mnist-pixels": ["--model.d_model", "8", "--model.n_layers", "1"],
    "mnist-diffusion": ["--model.d_model", "8", "--model.n_layers", "1", "--model.steps", "20"],
}
PARAMETERS = {"mnist-pixels": 70_020, "mnist-diffusion": 339_161}
DIGITS = ["--data", "digits", "--data.test_frac", "0.02", "--model.mean", "[0.3053]"]
DIGITS += ["--model.std", "[0.3760]", "--trainer.checkpoint_every", "1"]
every_recipe = pytest.mark.parametrize("recipe", list(WORDS))


def fit(recipe: str, out: Path, *words: str) -> int:
    command = ["fit", recipe, *DIGITS, *WORDS[recipe], "--out", str(out)]
    return main([*command, "--trainer.max_steps", "4", *words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    for recipe in WORDS:
        assert fit(recipe, out) == 0
    return out


class KillAt:
    @hookimpl
    def ssm_step_end(self, run: Run, metrics: dict[str, float]) -> None:
        if run.step == 3:
            raise RuntimeError("killed")


@every_recipe
def test_killed_run_goes_on_bit_for_bit(recipe: str, runs: Path, tmp_path: Path) -> None:
    """Times, noise and hidden classes are drawn from torch's generator, which is checkpointed."""
    killer = KillAt()
    plugin_host().register(killer, provider="test")
    try:
        assert fit(recipe, tmp_path) == 1
    finally:
        plugin_host().manager.unregister(killer)
    killed, whole = tmp_path / f"{recipe}-001", runs / f"{recipe}-001"
    assert fit(recipe, tmp_path, "--resume", str(killed)) == 0
    resumed = load_weights(killed / "model.safetensors")[0]
    expected = load_weights(whole / "model.safetensors")[0]
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert read_status(killed)["metrics"] == read_status(whole)["metrics"]


@every_recipe
def test_recipe_is_registered_and_complete(recipe: str) -> None:
    host = plugin_host()
    spec = host.get("recipes", recipe)
    assert spec.summary
    config = resolve(host, recipe, yaml.safe_load(spec.path.read_text()))
    model = config.specs["model"].build(config.typed["model"], mnist.INFO)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[recipe]
    assert resolve(host, recipe, yaml.safe_load(config.to_yaml())) == config


@every_recipe
def test_report_shows_samples(recipe: str, runs: Path) -> None:
    run = runs / f"{recipe}-001"
    with Image.open(run / "report" / f"samples-{run.name}.png") as picture:
        assert picture.size == (10 * 26, 4 * 26)
    assert "samples-" in (run / "report" / "report.md").read_text()
    assert "40 images that the model drew" in (run / "report" / "report.html").read_text()


@every_recipe
def test_command_draws_the_same_picture_for_the_same_seed(
    recipe: str, runs: Path, tmp_path: Path
) -> None:
    def picture(name: str, *words: str) -> np.ndarray:
        command = ["sample", str(runs / f"{recipe}-001"), "--out", str(tmp_path / name)]
        command += ["--rows", "2", "--columns", "3", "--steps", "5"]
        assert main([*command, *words]) == 0
        with Image.open(tmp_path / name) as image:
            return np.array(image)

    first = picture("a.png")
    assert first.shape == (2 * 26, 3 * 26)
    assert (first == picture("b.png")).all()
    assert (first != picture("c.png", "--seed", "1")).any()


def test_completed_images_keep_their_rows_and_are_of_their_column(runs: Path) -> None:
    options = SampleOptions(rows=2, columns=3, complete=5)
    images, columns = run_samples(runs / "mnist-pixels-001", options)
    assert columns == 3
    test = digits.build(digits.DigitsOptions(test_frac=0.02)).evaluation
    for place, image in enumerate(images):
        same = []
        for index in range(len(test)):  # type: ignore[arg-type]
            given, label = test[index]
            unit = given * 0.3760 + 0.3053
            rounded = (unit * 4).long().clamp(max=3) / 3
            if torch.equal(rounded[:, :5], image[:, :5]):
                same.append(int(label))
        assert place % 3 in same


def test_a_run_that_cannot_draw(runs: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run)]) == 2
    assert "a run of PatchClassifier, expected one of pixel-model" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="a diffusion model completes no images"):
        run_samples(runs / "mnist-diffusion-001", SampleOptions(complete=4))
    with pytest.raises(ConfigError, match="too few test images for 50 x 10"):
        run_samples(runs / "mnist-pixels-001", SampleOptions(rows=50, complete=4))


def test_grid() -> None:
    """Six images, of which the last row lacks one, with lines between."""
    shades = torch.arange(5) / 5
    grid = as_grid(shades.view(5, 1, 1, 1).expand(5, 1, 2, 4), 3)
    assert grid.shape == (2 * (2 * 3 + 2), 3 * (4 * 3 + 2))
    for i, shade in enumerate(shades.tolist()):
        y, x = divmod(i, 3)
        cell = grid[y * 8 + 1 : y * 8 + 7, x * 14 + 1 : x * 14 + 13]
        assert (cell == round(shade * 255)).all()
        assert (grid[y * 8, x * 14 : x * 14 + 14] == round(0.3 * 255)).all()
    assert (grid[8:, 28:] == 0).all()
    assert as_grid(torch.zeros(2, 3, 2, 2), 2).shape == (8, 16, 3)
    assert as_grid(torch.ones(1, 2, 2, 2), 1).shape == (8, 8)
