"""A toy recipe for the engine, and distributions made on the fly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssm_core import plugin_host
from ssm_core.cli import commands, main
from ssm_prune import report_page
from ssm_prune.loader import prune_plugins
from ssm_prune.masks import MaskStore

MakeDistribution = Callable[..., Path]
Train = Callable[..., Path]
Interrupt = Callable[[int], AbstractContextManager[None]]

TOY_PLUGIN = """
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

import ssm_core
from ssm_core.specs import NoOptions


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        mamba = lambda: ssm_core.build_mixer("mamba", 8, {"d_state": 4})
        self.tower = ssm_core.Tower(mamba, ssm_core.TowerConfig(d_model=8, n_layers=2))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.tower(self.embed(x)).mean(dim=1))


class Classification(ssm_core.Task):
    def loss(self, model, batch):
        outputs = model(batch[0])
        return nn.functional.cross_entropy(outputs, batch[1]), outputs

    def metrics(self):
        return MetricCollection({"accuracy": MulticlassAccuracy(4, average="micro")})


def data(config):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(48, 5, 3, generator=generator)
    dataset = TensorDataset(x, torch.randint(4, (48,), generator=generator))
    return ssm_core.DataBundle(dataset, dataset, ssm_core.DataInfo((5, 3), 4))


@ssm_core.hookimpl
def ssm_register_models():
    build = lambda config, info: Classifier()
    return [ssm_core.ModelSpec("toy-model", NoOptions, build, "a tiny Mamba")]


@ssm_core.hookimpl
def ssm_register_datasets():
    return [ssm_core.DatasetSpec("toy-data", NoOptions, data, "noise")]


@ssm_core.hookimpl
def ssm_register_tasks():
    build = lambda config, info: Classification()
    return [ssm_core.TaskSpec("toy-task", NoOptions, build, "classify")]


@ssm_core.hookimpl
def ssm_register_recipes():
    return ssm_core.recipes_in(Path(__file__).parent / "recipes")
"""

TOY_RECIPE = """
summary: a tiny Mamba on noise
model: {name: toy-model}
data: {name: toy-data}
task: {name: toy-task}
loader: {batch_size: 8, eval_batch_size: 48}
optim: {lr: 0.01}
trainer: {max_epochs: null, max_steps: 12, accelerator: cpu, log_every: 1, checkpoint_every: 1}
"""


def write_distribution(
    folder: Path,
    name: str,
    version: str,
    module: str,
    source: str,
    group: str = "ssm_prune.plugins",
    entry: str | None = None,
) -> Path:
    """Write a module and the metadata of an installed distribution with one entry point."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(
        f"[{group}]\n{entry or name} = {module}\n", encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors of a few numbers gain nothing from threads, and a busy machine loses much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeDistribution]:
    """`make(name, version, module, source)` installs a pruning plugin for this test only."""
    modules = []

    def make(name: str, version: str, module: str, source: str) -> Path:
        folder = tmp_path / "site" / f"{name}-{version}"
        write_distribution(folder, name, version, module, source)
        monkeypatch.syspath_prepend(folder)
        modules.append(module)
        forget_plugins()
        return folder

    yield make
    for module in modules:
        sys.modules.pop(module, None)
    forget_plugins()


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `sys.path` that offers the recipe `toy`."""
    folder = tmp_path_factory.mktemp("toy")
    write_distribution(folder, "ssm-toy", "1.0", "ssm_toy", TOY_PLUGIN, "ssm.plugins")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "toy.yaml").write_text(TOY_RECIPE, encoding="utf-8")
    return folder


@pytest.fixture
def toy_recipe(toy_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The recipe `toy` is installed."""
    monkeypatch.syspath_prepend(toy_site)
    forget_plugins()
    yield
    forget_plugins()


@pytest.fixture
def train(toy_recipe: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """`train("--prune", ..., out="a", code=0)` runs `ssm-train fit toy` and returns its folder.

    Without the pictures at its end, which take twice as long as the run.
    """
    monkeypatch.setattr(commands, "print_report", lambda *arguments: None)
    monkeypatch.setattr(report_page, "draw_pictures", lambda *arguments: [])

    def run(*words: str, out: str = "runs", code: int = 0) -> Path:
        assert main(["fit", "toy", "--out", str(tmp_path / out), *words]) == code
        folders = sorted((tmp_path / out).glob("toy-*"))
        return folders[-1] if folders else tmp_path / out

    return run


@pytest.fixture
def tied_model() -> Callable[[torch.dtype], nn.Sequential]:
    """A model of which only `1.weight` can be pruned: 77 weights, half of which tie at zero."""

    def make(dtype: torch.dtype) -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 11), nn.Linear(11, 7), nn.Linear(7, 3))
        model.to(dtype)
        with torch.no_grad():
            model[1].weight[:, ::2] = 0
            model[1].weight[0] = 0.25
        model[2].weight.requires_grad_(False)
        assert model[1].weight.numel() % 2 == 1
        return model

    return make


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """`with interrupt(n):` masks are enforced n times, which is once in a step; then Ctrl-C."""

    @contextmanager
    def interrupted(times: int) -> Iterator[None]:
        enforce, calls = MaskStore.enforce, [0]

        def counted(self: MaskStore, *arguments: Any) -> None:
            calls[0] += 1
            if calls[0] > times:
                raise KeyboardInterrupt
            enforce(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(MaskStore, "enforce", counted)
            yield

    return interrupted


def forget_plugins() -> None:
    """Let the next call look for plugins again."""
    plugin_host.cache_clear()
    prune_plugins.cache_clear()
