"""`ssm-train delta MODEL_OR_RUN`: draw the step size Delta over images, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssm_core import make_config, plugin_host
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_vision import examples, presets, report, visualize
from ssm_vision.classifier import PatchClassifier
from ssm_vision.data import mnist

N_SHOWN = 10


def configure(parser: Any) -> None:
    """Add the arguments of the command."""
    models = ", ".join(presets.PRESETS)
    parser.add_argument("model", type=str, help=f"a run folder, or a trained model: {models}")
    parser.add_argument(
        "--images",
        type=str | None,
        default=None,
        help="an image file or a data set (mnist, digits, ...); default: the run's own data; for a "
        "model of the package MNIST under --root, or enlarged digits where it is absent",
    )
    parser.add_argument("--root", type=str, default="data", help="folder of the data sets")
    parser.add_argument("--out", type=str, default="delta.png", help="PNG file to write")
    parser.add_argument(
        "--invert", action="store_true", help="exchange black and white of an image file"
    )


def run(arguments: Any) -> int:
    """Draw the picture and print its path."""
    model, data_name, own_options = _load(arguments.model)
    if not model.has_step_sizes:
        raise ConfigError(
            f"{arguments.model}: its mixer {model.config.mixer!r} has no step size Delta to draw; "
            "choose a Mamba, e.g. mnist_bimamba"
        )
    shown = _examples(arguments, model, data_name, own_options)
    title = report.delta_title(Path(arguments.model).name)
    print(visualize.save(visualize.delta_figure(model, shown, title), Path(arguments.out)))
    return 0


def _load(name: str) -> tuple[PatchClassifier, str, Any]:
    """The model in evaluation mode, its data set's name and, for a run, that data set's options."""
    if name in presets.PRESETS:
        return presets.trained(name), "mnist", None
    if not Path(name).is_dir():
        raise UnknownNameError.of("model or run folder", name, presets.PRESETS)
    from ssm_core.train.restore import load_run

    restored = load_run(Path(name))
    if not isinstance(restored.module, PatchClassifier):
        raise ConfigError(
            f"{name}: a run of {type(restored.module).__name__}, not a patch classifier"
        )
    data = restored.config.specs["data"].name
    return restored.module, data, restored.config.typed["data"]


def _examples(
    arguments: Any, model: PatchClassifier, data_name: str, own_options: Any
) -> visualize.Examples:
    wanted = arguments.images
    datasets = plugin_host().table("datasets")
    if wanted is None and own_options is None:
        there = (Path(arguments.root) / "MNIST" / "raw" / mnist.FILES["test"][0]).is_file()
        wanted = "mnist" if there else "digits"
    if wanted == "digits" and model.info.input_shape == mnist.INFO.input_shape:
        return examples.digits_as_mnist(N_SHOWN)
    if wanted is None or (wanted == data_name and own_options is not None):
        return _from_data_set(model, data_name, own_options)
    if wanted in datasets:
        fields = datasets[wanted].spec.config.__dataclass_fields__
        options = {"root": arguments.root} if "root" in fields else {}
        config = make_config(datasets[wanted].spec.config, options, "data")
        return _from_data_set(model, wanted, config)
    if data_name not in examples.NORMALISATIONS:
        raise ConfigError(f"data set {data_name!r}: its normalisation is unknown, so no file fits")
    normalise = examples.NORMALISATIONS[data_name]
    return examples.from_file(Path(wanted), model.info, normalise, arguments.invert)


@torch.no_grad()
def _from_data_set(model: PatchClassifier, name: str, options: Any) -> visualize.Examples:
    """Telling examples among the first 500 test images."""
    bundle = plugin_host().get("datasets", name).build(options)
    if tuple(bundle.info.input_shape) != tuple(model.info.input_shape):
        raise ConfigError(
            f"--images {name} has images {tuple(bundle.info.input_shape)}, the model reads "
            f"{tuple(model.info.input_shape)}: choose another data set or an image file"
        )
    first = range(min(500, len(bundle.evaluation)))
    pool = report.examples_of(bundle, first, f"test images of {name}")
    assert pool.labels is not None
    where = examples.choose(pool.labels, model(pool.images).argmax(dim=1), N_SHOWN)
    return visualize.Examples(pool.images[where], pool.labels[where], pool.source)
