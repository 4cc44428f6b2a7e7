"""A plugin for the tests: points in the plane, a small network with dropout, two recipes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from ssm_core import (
    BenchmarkSpec,
    CommandSpec,
    DataBundle,
    DataInfo,
    DatasetSpec,
    ExportSpec,
    ExtensionSpec,
    ModelSpec,
    RecipeSpec,
    Task,
    TaskSpec,
    hookimpl,
)
from ssm_core.errors import ConfigError
from ssm_core.export import model_graph
from ssm_core.specs import BrokenPlugin
from ssm_core.train.recorder import loader_state


@dataclass(frozen=True)
class PointsConfig:
    """Points.

    Args:
        size: training examples.
        seed: of the points.
    """

    size: int = 96
    seed: int = 1

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigError(f"data.size is {self.size}, expected 0 or more")


def build_points(config: PointsConfig) -> DataBundle:
    generator = torch.Generator().manual_seed(config.seed)
    x = torch.randn(config.size + 37, 2, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    cut = config.size
    return DataBundle(
        TensorDataset(x[:cut], y[:cut]),
        TensorDataset(x[cut:], y[cut:]),
        DataInfo((2,), 2, ("minus", "plus")),
    )


@dataclass(frozen=True)
class NetConfig:
    """Network.

    Args:
        width: hidden units.
        dropout: probability.
        delay_s: pause per forward pass, so that a test can kill the run in its middle.
    """

    width: int = 16
    dropout: float = 0.0
    delay_s: float = 0.0


class Net(nn.Module):
    def __init__(self, config: NetConfig, info: DataInfo) -> None:
        super().__init__()
        self.delay_s = config.delay_s
        self.layers = nn.Sequential(
            nn.Linear(info.input_shape[0], config.width),
            nn.Tanh(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, info.n_outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.delay_s)
        return self.layers(x)


class Classify(Task):
    monitor = "accuracy"
    higher_is_better = True

    def loss(self, model, batch):
        logits = model(batch[0])
        return nn.functional.cross_entropy(logits, batch[1]), logits

    def metrics(self):
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        return MetricCollection({"accuracy": MulticlassAccuracy(2, average="micro")})


@dataclass(frozen=True)
class NoOptions:
    """None."""


@dataclass(frozen=True)
class CounterConfig:
    """Counter.

    Args:
        start: first number.
        again: begin one more level at this step, once all steps are done.
    """

    start: int = 0
    again: int | None = None


class Counter:
    """An extension that counts every hook it sees and keeps its count in the checkpoint."""

    instances: list[Counter] = []  # noqa: RUF012

    def __init__(self, config: CounterConfig) -> None:
        self.steps, self.again = config.start, config.again
        self.kept = None
        self.seen: list[str] = []
        Counter.instances.append(self)

    @hookimpl
    def ssm_run_start(self, run):
        self.seen.append("run_start")

    @hookimpl
    def ssm_epoch_start(self, run):
        self.seen.append("epoch_start")

    @hookimpl
    def ssm_backward_end(self, run):
        self.seen.append("backward_end")
        assert all(p.grad is not None for p in run.module.parameters())

    @hookimpl
    def ssm_step_end(self, run, metrics):
        self.seen.append("step_end")
        self.steps += 1
        if run.step == self.again and run.level == 0:
            self.kept = loader_state(run)
        metrics["counter/steps"] = float(self.steps)

    @hookimpl
    def ssm_epoch_end(self, run):
        self.seen.append("epoch_end")

    @hookimpl
    def ssm_steps_done(self, run):
        self.seen.append("steps_done")
        if self.again is None or run.level:
            return None
        run.train_on(self.again, self.kept)
        return True

    @hookimpl
    def ssm_eval_end(self, run, metrics):
        self.seen.append("eval_end")
        metrics["counter/eval"] = 1.0

    @hookimpl
    def ssm_should_stop(self, run, metrics):
        self.seen.append("should_stop")
        return "counted far enough" if self.steps >= 1000 else None

    @hookimpl
    def ssm_checkpoint_save(self, run, state):
        self.seen.append("checkpoint_save")
        state["counter"] = {"steps": self.steps, "tensor": torch.tensor([self.steps])}

    @hookimpl
    def ssm_checkpoint_load(self, run, state):
        self.seen.append("checkpoint_load")
        self.steps = state["counter"]["steps"]
        assert int(state["counter"]["tensor"][0]) == self.steps

    @hookimpl
    def ssm_run_end(self, run, error):
        self.seen.append(f"run_end {type(error).__name__}")


@hookimpl
def ssm_register_models():
    return [ModelSpec("net", NetConfig, Net, "two layers")]


@hookimpl
def ssm_register_benchmarks():
    nets = BenchmarkSpec(
        name="nets",
        help="net",
        models=lambda: {"net": False},
        build=lambda name, size: Net(NetConfig(), DataInfo((2,), 2)),
        inputs=lambda model, batch, size: torch.randn(batch * size, 2),
        loss=lambda y, x: y.square().mean(),
        size="points",
        size_label="points in the plane",
        default_size=16,
        unit="points",
        count=lambda batch, size: batch * size,
    )
    return [nets]


def _load_net(source, checkpoint):
    return Net(NetConfig(), DataInfo((2,), 2)) if source == "net" else None


def _graphs(model, info):
    return [model_graph(model, info or DataInfo((2,), 2))] if isinstance(model, Net) else None


@hookimpl
def ssm_register_exports():
    return [ExportSpec("nets", "net", _load_net, _graphs)]


@hookimpl
def ssm_register_datasets():
    return [DatasetSpec("points", PointsConfig, build_points, "points in the plane")]


@hookimpl
def ssm_register_tasks():
    return [TaskSpec("classify", NoOptions, lambda config, info: Classify(), "two classes")]


@hookimpl
def ssm_register_extensions():
    return [ExtensionSpec("count", "counters", "counter", CounterConfig, Counter, "counts steps")]


@hookimpl
def ssm_broken_plugins():
    return [BrokenPlugin("lost 1", "lost", "OSError: no such file")]


@hookimpl
def ssm_register_recipes():
    folder = Path(__file__).parent
    return [
        RecipeSpec("points-net", folder / "points-net.yaml", "a net for points"),
    ]


def _configure(parser):
    parser.add_argument("word")
    parser.add_argument("--count", type=int, default=1)


def _say(arguments):
    print("said", arguments.word)
    return 3


@hookimpl
def ssm_register_commands():
    return [CommandSpec("say", "say a word", _configure, _say)]


@hookimpl
def ssm_report(runs, folder):
    path = folder / "toy.txt"
    path.write_text("\n".join(run.name for run in runs))
    return [path]
