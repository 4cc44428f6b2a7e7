"""The inverted residual of MobileNetV2 over a grid of tokens.

Source: Sandler et al. 2018, arXiv:1801.04381, section 3.3 and Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn import functional as F

from ssm_core.linear import Linear
from ssm_core.norm import NormName, make_norm
from ssm_core.shapes import Activations
from ssm_core.units import BlockAdapter, hidden_channels
from ssm_vision.models.removable import the_one_size


class InvertedResidual(nn.Module):
    """project(relu6(depthwise(relu6(expand(norm(x)))))) over patches x (b, rows columns, d).

    The branch only: the caller adds it to x. The last map is linear, as in the paper. One norm in
    front, as in the other branches of the model, takes the place of the paper's three batch norms:
    the result for an image does not depend on the others of its batch, and a batch of one trains.

    With `hidden` there are so many channels inside, not t d.

    Parameters: norm (d), expand (t d, d), depthwise (t d, 1, kernel, kernel), project (d, t d).

    Cost: O(b l t d (d + kernel^2)).
    """

    def __init__(
        self,
        d_model: int,
        expansion: int,
        kernel: int,
        norm: NormName,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.options = (d_model, expansion, kernel, norm)
        hidden = expansion * d_model if hidden is None else hidden
        self.norm = make_norm(norm, d_model)
        self.expand = Linear(d_model, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.project = Linear(hidden, d_model)

    def resized(self, sizes: Mapping[str, Any]) -> InvertedResidual:
        """Return a new, untrained branch with `sizes` = {"hidden": channels inside}.

        Raises:
            ConfigError: other sizes.
        """
        hidden = the_one_size("InvertedResidual", "hidden", sizes)
        new = InvertedResidual(*self.options, hidden)
        new.norm.eps = self.norm.eps  # that of the model around it
        return new

    def removable_units(self) -> BlockAdapter:
        """Channels inside."""
        rows = [f"{map_}.{name}" for map_ in ("expand", "depthwise") for name in ("weight", "bias")]
        channels = hidden_channels(self.project.in_features, tuple(rows), "project.weight")
        return BlockAdapter((channels,), ("project.weight", "project.bias"))

    def forward(self, x: Activations, grid: tuple[int, int]) -> Activations:
        """Return the branch for patches x (b, l, d) that lie row by row on `grid`."""
        hidden = F.relu6(self.expand(self.norm(x)))
        # (b, c, y, x) in shape, channels last in memory: no copy on the way in or out
        image = hidden.unflatten(1, grid).permute(0, 3, 1, 2)
        image = F.relu6(self.depthwise(image))
        return self.project(image.permute(0, 2, 3, 1).flatten(1, 2))
