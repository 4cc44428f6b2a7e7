"""Pictures of what a trained model draws, for `ssm-train sample` and `ssm-train report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core import Picture
from ssm_core.errors import ConfigError
from ssm_core.layers.checks import positive_int
from ssm_vision.generative.ddim import DdimOptions, draw_diffusion
from ssm_vision.generative.diffusion_model import DiffusionModel
from ssm_vision.generative.pixel_model import PixelModel
from ssm_vision.generative.pixel_sampling import draw_pixels
from ssm_vision.models.image_model import Images
from ssm_vision.scene import Scene

#: models that draw, as runs call them
MODELS = ("pixel-model", "diffusion-model")
#: pixels of the picture per pixel of an image
_ZOOM = 3


@dataclass(frozen=True)
class SampleOptions:
    """What to draw.

    Args:
        rows: images per column of the picture.
        columns: images per row; with classes, column i shows class i modulo their number.
        temperature: of a pixel model; below 1 is bolder.
        complete: of a pixel model: keep so many rows of test images and draw the rest.
        steps, eta, guidance: of a diffusion model, see `DdimOptions`; a process of fewer steps is
            gone through in all of them.
        seed: of the choices; the same seed draws the same picture on the same machine.
    """

    rows: int = 8
    columns: int = 10
    temperature: float = 1.0
    complete: int = 0
    steps: int = 50
    eta: float = 0.0
    guidance: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            positive_int("sample", name, getattr(self, name))


def draw(
    model: PixelModel | DiffusionModel, options: SampleOptions, given: Images | None
) -> Images:
    """Images (rows columns, c, y, x) of 0..1, row by row of the picture.

    Args:
        given: images to complete, normalised, of the same number; for a pixel model.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(options.seed)
    count = options.rows * options.columns
    labels: Tensor | int = count
    if model.config.conditional:
        columns = torch.arange(options.columns, device=device) % model.info.n_outputs
        labels = columns.repeat(options.rows)
    if isinstance(model, PixelModel):
        return draw_pixels(model, labels, generator, options.temperature, given, options.complete)
    return draw_diffusion(
        model,
        labels,
        generator,
        DdimOptions(min(options.steps, model.process.steps), options.eta, options.guidance),
    )


def run_samples(run: Path, options: SampleOptions, device: str = "cpu") -> tuple[Images, int]:
    """Draw with the model of a run folder: images of 0..1, and how many of them are in a row.

    Completed images are those of the test part whose class is that of their column.

    Raises:
        ConfigError: not a run of a model that draws, or rows to keep with another than a pixel
            model.
        CheckpointError: no weights yet, or damaged ones.
    """
    from ssm_core.train.restore import load_run

    restored = load_run(run, device)
    model = restored.module
    if not isinstance(model, PixelModel | DiffusionModel):
        raise ConfigError(
            f"{run}: a run of {type(model).__name__}, expected one of {' or '.join(MODELS)}"
        )
    if not options.complete:
        return draw(model, options, None), options.columns
    if not isinstance(model, PixelModel):
        raise ConfigError(f"{run}: a diffusion model completes no images, leave --complete out")
    bundle = restored.config.specs["data"].build(restored.config.typed["data"])
    given = _examples(bundle.evaluation, model, options).to(device)
    return draw(model, options, given), options.columns


def _examples(part: Any, model: PixelModel, options: SampleOptions) -> Images:
    """Test images (rows columns, c, y, x) in order, each of its column's class if it has one."""
    found: list[list[Tensor]] = [[] for _ in range(options.columns)]
    for index in range(len(part)):
        image, label = part[index]
        for column, images in enumerate(found):
            fits = not model.config.conditional or column % model.info.n_outputs == int(label)
            if fits and len(images) < options.rows:
                images.append(image)
                break
        if all(len(images) == options.rows for images in found):
            return torch.stack(
                [found[x][y] for y in range(options.rows) for x in range(len(found))]
            )
    raise ConfigError(
        f"sample: too few test images for {options.rows} x {options.columns}, ask for fewer"
    )


def save_grid(images: Images, columns: int, path: Path) -> Path:
    """Write images (b, c, y, x) of 0..1, `columns` in a row, as one PNG and return its path.

    Channels other than 1 or 3 are shown as their mean.
    """
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(as_grid(images, columns).cpu().numpy()).save(path, optimize=True)
    return path


def as_grid(images: Images, columns: int) -> Tensor:
    """One picture (y, x) or (y, x, 3), uint8, enlarged, with grey lines between the images."""
    shown = images if images.shape[1] in (1, 3) else images.mean(dim=1, keepdim=True)
    large = shown.repeat_interleave(_ZOOM, dim=2).repeat_interleave(_ZOOM, dim=3)
    framed = F.pad(large, (1, 1, 1, 1), value=0.3)
    missing = -len(framed) % columns
    framed = torch.cat([framed, framed.new_zeros(missing, *framed.shape[1:])])
    rows = framed.unflatten(0, (-1, columns))  # (rows, columns, c, y, x)
    picture = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return (picture * 255).round().to(torch.uint8).squeeze(-1)


def draw_samples(scene: Scene) -> list[Picture]:
    """Draw a grid of samples of a run, samples-RUN.png, for `ssm-train report`."""
    model = scene.model
    assert isinstance(model, PixelModel | DiffusionModel)
    options = SampleOptions(rows=4)
    path = scene.folder / f"samples-{scene.name.replace('/', '-')}.png"
    save_grid(draw(model, options, None), options.columns, path)
    classes = " Column i is of class i." if model.config.conditional else ""
    text = f"{options.rows * options.columns} images that the model drew, none chosen.{classes}"
    return [Picture(path, scene.restored.folder, "Samples", text)]
