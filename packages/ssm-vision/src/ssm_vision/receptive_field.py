"""Effective receptive fields: which pixels a feature in the middle of the image depends on.

Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural
networks", arXiv:1701.04128: the gradient of the centre of a feature map with respect to the image.
Here its root mean square over feature channels, image channels and images, so that nothing cancels:
a plain sum over the channels of a layer norm's output has no gradient at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ssm_vision.classifier import PatchClassifier
from ssm_vision.models.image_model import FeatureMap, ImageModel, Images
from ssm_vision.visualize import new_figure, spread, without_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Field: TypeAlias = Annotated[Tensor, "y x"]
"""One number >= 0 per pixel."""


#: panels of a picture; of a model with more stages as many, evenly spread
MOST_MAPS = 4
#: what a picture tells from nothing, as a fraction of the largest value
LEAST = 1e-4


class MapOf(NamedTuple):
    """A way to take feature maps from a model."""

    name: str
    """of the place in the model"""
    features: Callable[[Images], FeatureMap]


def feature_maps_of(model: nn.Module) -> list[MapOf]:
    """At most `MOST_MAPS` feature maps, from the image to the head; none of models without any."""
    if isinstance(model, PatchClassifier):
        depths = [i + 1 for i in spread(len(model.tower.layers), MOST_MAPS)]
        return [MapOf(f"block {n}", functools.partial(_patch_features, model, n)) for n in depths]
    if not isinstance(model, ImageModel):
        return []
    return [
        MapOf(model.stages[i].name, functools.partial(_stage_features, model, i))
        for i in spread(len(model.stages), MOST_MAPS)
    ]


def _stage_features(model: ImageModel, stage: int, images: Images) -> FeatureMap:
    return model.feature_maps(images, [stage])[0]


def _patch_features(model: PatchClassifier, depth: int, images: Images) -> FeatureMap:
    """What the first `depth` blocks of a patch classifier give, on its grid of patches."""
    tokens: Tensor = model.tokens(images)
    for block in model.tower.layers[:depth]:
        tokens = block(tokens)
    return tokens.unflatten(1, (model.rows, model.columns)).movedim(3, 1)


def receptive_field(
    features: Callable[[Images], FeatureMap], images: Images, seed: int = 0
) -> Field:
    """How strongly the centre of a feature map depends on every pixel.

    With F (b, d, y, x) the features and (u, v) = (rows // 2, columns // 2) their centre,

        field[y, x]^2 = mean over b, c of sum over k of (d F[b, k, u, v] / d image[b, c, y, x])^2

    where the sum over k is estimated without bias by one backward pass per image batch: the
    gradient of sum_k s_k F[k], with a random sign s_k per channel and image, squared (Hutchinson).
    Pixels outside the receptive field are exactly 0.

    Args:
        features: from images to feature maps, differentiable.
        images: (b, c, y, x), floating point, normalised as in training.
        seed: of the signs.
    Returns:
        (y, x) float32, on the images' device; unit: features per unit of the image.
    Cost: one forward and one backward pass.
    """
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        maps = features(leaf)
        centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]  # (b, d)
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(2, centre.shape, generator=generator).to(centre) * 2 - 1
        (gradient,) = torch.autograd.grad((centre * signs).sum(), leaf)
    return gradient.float().square().mean(dim=(0, 1)).sqrt()


def share_for(field: Field, part: float) -> float:
    """The smallest share of the pixels that has `part` of the field's sum, 0..1 (Ding et al. 2022,
    arXiv:2203.06717, table 4: high-contribution area ratio, counted in pixels)."""
    ordered = field.flatten().double().sort(descending=True).values.cumsum(0)
    if not ordered[-1] > 0:
        return 0.0
    return (int((ordered < part * ordered[-1]).sum()) + 1) / len(ordered)


def receptive_figure(fields: Sequence[tuple[str, Field]], title: str) -> Figure:
    """Receptive fields side by side, each relative to its largest value, on a logarithmic scale.

    Args:
        fields: (heading, field) of each panel.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    colours = colormaps["viridis"].with_extremes(bad="#d9d9d9")
    scale = LogNorm(LEAST, 1.0)
    figure = new_figure(2.6 * max(len(fields), 1.6) + 0.9, 3.7)
    panels = figure.subplots(1, len(fields), squeeze=False)[0]
    figure.suptitle(title, fontsize=10)
    for axes, (heading, field) in zip(panels, fields, strict=True):
        _draw_field(axes, field, colours, scale)
        axes.set_title(heading, fontsize=9)
        half, most = 100 * share_for(field, 0.5), 100 * share_for(field, 0.95)
        axes.set_xlabel(f"50 % in {half:.1f} % of the pixels\n95 % in {most:.1f} %", fontsize=8)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=list(panels), shrink=0.7, pad=0.02)
    bar.set_label("gradient, largest = 1", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_field(axes: Any, field: Field, colours: Any, scale: Any) -> None:
    """Zero is grey: the pixel is outside; what is merely small has the scale's darkest colour."""
    relative = (field / field.max().clamp(min=torch.finfo(torch.float32).tiny)).cpu()
    shown = relative.clamp(min=LEAST).masked_fill(relative == 0, torch.nan)
    axes.imshow(shown.numpy(), cmap=colours, norm=scale, interpolation="nearest")
    without_ticks(axes)
