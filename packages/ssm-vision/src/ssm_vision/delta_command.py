"""`ssm-train delta MODEL_OR_RUN`: draw the step size Delta over images, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import nn

from ssm_core import make_config, plugin_host
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_vision import examples, presets, visualize
from ssm_vision.data import mnist
from ssm_vision.model_pictures import delta_title
from ssm_vision.visualize import HasStepSizes

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
    shown = _examples(arguments, model, data_name, own_options)
    title = delta_title(Path(arguments.model).name)
    print(visualize.save(visualize.delta_figure(model, shown, title), Path(arguments.out)))
    return 0


def _load(name: str) -> tuple[HasStepSizes, str, Any]:
    """The model in evaluation mode, its data set's name and, for a run, that data set's options."""
    model: nn.Module
    if name in presets.PRESETS:
        model, data, options = presets.trained(name), "mnist", None
    elif Path(name).is_dir():
        from ssm_core.train.restore import load_run

        restored = load_run(Path(name))
        model, data = restored.module, restored.config.specs["data"].name
        options = restored.config.typed["data"]
    else:
        raise UnknownNameError.of("model or run folder", name, presets.PRESETS)
    if not getattr(model, "has_step_sizes", False):
        raise ConfigError(
            f"{name}: its layers have no step size Delta to draw; choose a Mamba, e.g. "
            "mnist_bimamba"
        )
    return cast(HasStepSizes, model), data, options


def _examples(
    arguments: Any, model: HasStepSizes, data_name: str, own_options: Any
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


def _from_data_set(model: HasStepSizes, name: str, options: Any) -> visualize.Examples:
    """Telling examples among the test images."""
    bundle = plugin_host().get("datasets", name).build(options)
    if tuple(bundle.info.input_shape) != tuple(model.info.input_shape):
        raise ConfigError(
            f"--images {name} has images {tuple(bundle.info.input_shape)}, the model reads "
            f"{tuple(model.info.input_shape)}: choose another data set or an image file"
        )
    images, targets = examples.pool(bundle.evaluation)
    return examples.telling(model, images, targets, f"test images of {name}", N_SHOWN)
