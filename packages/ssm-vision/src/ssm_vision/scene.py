"""A run that is to be drawn: its model, its images, and where the pictures go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from torch import nn

from ssm_core import DataBundle, Picture
from ssm_vision import visualize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ssm_core.train.restore import RestoredRun


@dataclass(frozen=True)
class Scene:
    """What a function that draws a run is given.

    Attributes:
        restored: the run; its model is in evaluation mode, on `device`.
        data: the run's data; images are normalised as the model expects them.
        name: what tables and titles call the run.
        folder: where pictures go.
        device: where the model is: a GPU if there is one.
    """

    restored: RestoredRun
    data: DataBundle
    name: str
    folder: Path
    device: str = "cpu"

    @property
    def model(self) -> nn.Module:
        """The trained model."""
        return self.restored.module

    @property
    def source(self) -> str:
        """Where the evaluation images are from, for titles."""
        return f"test images of {self.restored.config.specs['data'].name}"

    def picture(self, kind: str, figure: Figure, title: str, text: str) -> Picture:
        """Write `figure` as KIND-RUN.png and return it with a heading and a caption.

        Args:
            kind: first part of the file's name, e.g. "confusion".
            title, text: as in `ssm_core.Picture`.
        """
        path = self.folder / f"{kind}-{self.name.replace('/', '-')}.png"
        return Picture(visualize.save(figure, path), self.restored.folder, title, text)


#: draws the pictures of a run; raises SsmError if that cannot be done
Painter: TypeAlias = Callable[[Scene], list[Picture]]
