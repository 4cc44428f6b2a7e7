"""Our models under timm's roof: `timm.create_model("vim_tiny_patch16_224", ..)`.

Importing this module imports timm and registers every state space model of `list_models()` but the
`mnist_*` ones. What timm passes beside options of a model's configuration is known here by name;
anything else is an error that names the nearest option, as in `ssm_vision.create_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from timm.models._features import FeatureGetterNet
from torch import nn

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import Tensors, collect
from ssm_vision import checkpoints, zoo
from ssm_vision.models.image_model import ImageModel
from ssm_vision.models.preset import Preset
from ssm_vision.models.registry import FAMILIES

#: what timm calls otherwise
FIELDS = {"drop_path_rate": "drop_path", "drop_rate": "dropout"}
#: what timm and its training script pass to every model; a model whose configuration has no such
#: field takes only these values
WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "drop_rate": (0.0,),
    "drop_path_rate": (0.0,),
    "drop_block_rate": (0.0,),
    "global_pool": ("", "avg"),
}
#: keys of `pretrained_cfg` that say where weights are
SOURCES = ("file", "url", "hf_hub_id", "state_dict")

#: timm reads these for each name that is registered from this module
default_cfgs: dict[str, dict[str, Any]] = {}


class StageFeatures(FeatureGetterNet):
    """Feature maps of the stages, by default of the last four; without the classifier."""

    def __init__(self, model: ImageModel, out_indices: Any = None, **options: Any) -> None:
        if out_indices is None:
            out_indices = min(4, len(model.stages))
        model.reset_classifier(0)
        super().__init__(model, out_indices=out_indices, **options)


def register(name: str, preset: Preset) -> None:
    """Make a name known to timm, with the sizes and the preprocessing it is published for."""

    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        return build(name, pretrained, options)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f'ssm_vision.create_model("{name}") with the arguments of timm.'
    entry.__module__ = __name__
    side = preset.image_size
    default_cfgs[name] = {
        "input_size": (preset.in_chans, side, side),
        "num_classes": preset.num_classes,
        "crop_pct": preset.crop,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
    }
    register_model(entry)


def build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Build a model as `timm.create_model` asks for it.

    Args:
        pretrained: load the weights that the source in `pretrained_cfg` or its overlay names; they
            may have the original repository's names, as for `ssm_vision.create_model`.
        options: arguments of timm, and fields of the family's configuration.
    Raises:
        CheckpointError: weights are wanted, but no source is given; or they do not fit.
        UnknownNameError, ConfigError: as `ssm_vision.create_model`.
    """
    preset = zoo.find(name)
    overlay = dict(options.pop("pretrained_cfg_overlay", None) or {})
    if pretrained and not _has_source(overlay) and not _has_source(options.get("pretrained_cfg")):
        raise CheckpointError(
            f"{name}: no weights come with the package; use pretrained=False and "
            "checkpoint=, or say where they are: pretrained_cfg_overlay={'file': path}"
        )
    if "img_size" in options or "in_chans" in options:
        overlay.setdefault("input_size", _input_size(preset, options))
    model: nn.Module = build_model_with_cfg(
        partial(_construct, name, preset),
        name,
        pretrained,
        pretrained_cfg_overlay=overlay or None,
        pretrained_filter_fn=partial(_filled, name),
        feature_cfg={"out_indices": None, "feature_cls": StageFeatures},
        **options,
    )
    return model


def _construct(name: str, preset: Preset, **options: Any) -> nn.Module:
    known = vars(preset.config)
    for option, values in WITHOUT_EFFECT.items():
        field = FIELDS.get(option, option)
        if option in options and field in known:
            options.setdefault(field, options.pop(option))
        elif options.get(option) in values:
            del options[option]
    return zoo.create_model(name, **options)


def _filled(name: str, state_dict: Mapping[str, Any], model: nn.Module) -> Tensors:
    """Load a checkpoint strictly and return what timm is to load: the same once more."""
    checkpoints.fill(name, model, collect(name, state_dict, "", "."), resized=True)
    return model.state_dict()


def _has_source(pretrained_cfg: Any) -> bool:
    """Whether a dict or a `PretrainedCfg` of timm says where weights are."""
    if isinstance(pretrained_cfg, dict):
        return any(pretrained_cfg.get(key) for key in SOURCES)
    return any(getattr(pretrained_cfg, key, None) for key in SOURCES)


def _input_size(preset: Preset, options: Mapping[str, Any]) -> tuple[int, ...]:
    size = options.get("img_size", preset.image_size)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return (options.get("in_chans", preset.in_chans), *sides)


for _presets in FAMILIES.values():
    for _name, _preset in _presets.items():
        register(_name, _preset)
