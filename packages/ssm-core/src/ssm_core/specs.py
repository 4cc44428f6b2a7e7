"""What a plugin hands to the host: one small frozen record per kind of thing.

`config` is always a dataclass: its fields are the options a user may set, its docstring their help.
`build` should import heavy modules inside, so that `ssm-train list` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from ssm_core.export import Graph
    from ssm_core.layers.protocol import SequenceLayer
    from ssm_core.task import Task


@dataclass(frozen=True)
class DataInfo:
    """What a model must know about the data it is built for; stored in every run folder.

    Attributes:
        input_shape: one example without the batch axis, e.g. (c, y, x) or (l,).
        n_outputs: number of classes, or size of the vocabulary.
        labels: a name for each output (class names, characters); may be empty.
    """

    input_shape: tuple[int, ...]
    n_outputs: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataBundle:
    """Training and evaluation data.

    Map-style datasets of (input, target) pairs. A dataset with `__getitems__` returns whole
    batches at once and must come with the `collate` that accepts them.
    """

    train: Dataset[Any]
    evaluation: Dataset[Any]
    info: DataInfo
    collate: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A whole model: `build(config, data_info)` returns the module, `config` its options."""

    name: str
    config: type
    build: Callable[[Any, DataInfo], nn.Module]
    summary: str
    source: str = ""


@dataclass(frozen=True)
class MixerSpec:
    """A sequence layer that any tower can use: `build(d_model, config)`."""

    name: str
    config: type
    build: Callable[[int, Any], SequenceLayer]
    summary: str


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: `build(config)` finds (or downloads) it, or raises `DataError`."""

    name: str
    config: type
    build: Callable[[Any], DataBundle]
    summary: str


@dataclass(frozen=True)
class TaskSpec:
    """What is learned: `build(config, data_info)` returns a `ssm_core.task.Task`."""

    name: str
    config: type
    build: Callable[[Any, DataInfo], Task]
    summary: str


@dataclass(frozen=True)
class RecipeSpec:
    """A named YAML file: a complete configuration of a run."""

    name: str
    path: Path
    summary: str


@dataclass(frozen=True)
class CommandSpec:
    """A further `ssm-train` command.

    `configure(parser)` adds arguments to a `jsonargparse.ArgumentParser`; `run(arguments)` does
    the work and returns the exit code.
    """

    name: str
    summary: str
    configure: Callable[[Any], None]
    run: Callable[[Any], int]


@dataclass(frozen=True)
class BenchmarkSpec:
    """A kind of models that `ssm-train bench` times against the size of their input.

    Attributes:
        name: plural, e.g. "image models".
        help: where the names of the models are listed.
        models: name -> whether it is a baseline, drawn dashed.
        build: (model, size) -> the module.
        inputs: (module, batch, size) -> a batch of inputs.
        loss: (outputs, inputs) -> what training differentiates.
        size: option and column, e.g. "image_size".
        size_label: what it means and its unit, e.g. "image size in pixels".
        default_size: where the option is not given.
        unit: plural of what throughput counts, e.g. "images".
        count: (batch, size) -> how many of them are in a batch.
        preload: modules whose import is no part of a measurement.
    """

    name: str
    help: str
    models: Callable[[], Mapping[str, bool]]
    build: Callable[[str, int], nn.Module]
    inputs: Callable[[nn.Module, int, int], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    size: str
    size_label: str
    default_size: int
    unit: str
    count: Callable[[int, int], int]
    preload: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What `ssm-train list` shows."""
        return f"time and memory against the {self.size_label}"


@dataclass(frozen=True)
class ExportSpec:
    """A kind of models that `ssm-train export` knows more about than images in, numbers out.

    Attributes:
        name: plural, e.g. "language models".
        summary: what is written of one, and what stands for it on the command line.
        load: (that, --checkpoint or None) -> the model with its weights; None: of another kind.
        graphs: (model, data of its run or None) -> what to write of it; None: of another kind.
    """

    name: str
    summary: str
    load: Callable[[str, str | None], nn.Module | None]
    graphs: Callable[[nn.Module, DataInfo | None], Sequence[Graph] | None]


@dataclass(frozen=True)
class ExtensionSpec:
    """An optional section of a run, chosen by `--SECTION NAME` and set by `--SECTION.key value`.

    `build(config)` returns an object whose `@hookimpl` methods take part in that run only. If
    `config` has a field `force_resume`, a run that goes on with it true may have other options of
    this section than before; the extension has to see to it that they fit the checkpoint.

    Attributes:
        section: configuration key and option, e.g. "prune".
        kind: plural used by `ssm-train list KIND`, e.g. "pruners".
        provider: distribution and version that `list` shows, when it is not the plugin's own (a
            plugin may pass on what plugins of its own offer).
    """

    section: str
    kind: str
    name: str
    config: type
    build: Callable[[Any], object]
    summary: str
    provider: str = ""


@dataclass(frozen=True)
class Registered:
    """A spec together with the distribution that offers it."""

    spec: Any
    provider: str


@dataclass(frozen=True)
class NoOptions:
    """The configuration of something that has no options."""


def recipes_in(folder: Path) -> list[RecipeSpec]:
    """One `RecipeSpec` per `*.yaml` in `folder`; its `summary:` key is the one-line help."""
    import yaml

    specs = []
    for path in sorted(folder.glob("*.yaml")):
        content: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        specs.append(RecipeSpec(path.stem, path, str(content.get("summary", ""))))
    return specs


@dataclass(frozen=True)
class Picture:
    """A picture for `ssm-train report`, and the words that go with it on the page.

    Attributes:
        path: a PNG, JPEG, GIF, WebP or SVG file in the report's folder.
        run: folder of the run it is about; None: about several runs together.
        title: heading over it; empty: the file's name.
        text: what there is to see, in a few sentences: caption, and words for who cannot see it.
    """

    path: Path
    run: Path | None = None
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Remark:
    """Something that the report has to say about a run, e.g. why it has no pictures."""

    run: Path
    text: str


@dataclass
class BrokenPlugin:
    """An entry point that could not be loaded, kept so that it can be named when it matters."""

    provider: str
    entry_point: str
    error: str = field(default="")

    def __str__(self) -> str:
        return f"{self.provider} (entry point {self.entry_point!r}): {self.error}"
