"""One block of Vim: a sequence mixer on all tokens and, if wanted, what looks at the image's grid.

It differs from `ssm_core.Block` in that: squeeze-and-excitation and the depthwise convolution must
know which tokens are patches and where they lie.

Sources: Zhu et al. 2024, arXiv:2401.09417, section 3.2 (the block); see the two modules for theirs.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssm_core import build_mixer
from ssm_core.block import DropPath
from ssm_core.norm import at_least_float32, make_norm
from ssm_core.shapes import Activations
from ssm_vision.models.depthwise import InvertedResidual
from ssm_vision.models.squeeze_excitation import SqueezeExcitation
from ssm_vision.models.vim_config import VimConfig
from ssm_vision.models.vim_tokens import Places, Shuffle


class VimBlock(nn.Module):
    """r = x + drop_path(mixer(norm(x))), then r + drop_path(inverted residual of r's patches).

    The residual stream is float32 (or float64) whatever the type of the weights or of autocast.
    The original adds a mixer's output at the beginning of the next block; the sums are the same.
    """

    def __init__(self, config: VimConfig, drop_path: float) -> None:
        super().__init__()
        d = config.embed_dim
        self.norm = make_norm(config.norm, d)
        self.norm.eps = config.norm_eps
        self.mixer = build_mixer(config.mixer, d, config.mixer_options)
        self.drop_path = DropPath(drop_path)
        self.squeezed = config.squeeze_excitation
        self.squeeze_excitation: SqueezeExcitation | None = None
        if self.squeezed != "none":
            self.squeeze_excitation = SqueezeExcitation(d, config.se_reduction)
        self.depthwise: InvertedResidual | None = None
        if config.depthwise:
            self.depthwise = InvertedResidual(
                d, config.depthwise, config.depthwise_kernel, config.norm
            )
            self.depthwise.norm.eps = config.norm_eps

    @property
    def branches(self) -> tuple[str, ...]:
        """The parts that change the residual stream; without them the block is the identity."""
        on_the_stream = ("squeeze_excitation",) if self.squeezed == "block" else ()
        return ("mixer", "depthwise", *on_the_stream)

    def forward(
        self, x: Activations, places: Places, shuffle: Shuffle | None = None
    ) -> Activations:
        """Map x (b, l, d) to (b, l, d).

        Args:
            places: of the tokens, before they were put in another order.
            shuffle: the order that they are in.
        """
        residual = at_least_float32(x)
        branch = self._excited("input", self.norm(residual), places, shuffle)
        branch = self._excited("mixer", self.mixer(branch), places, shuffle)
        residual = residual + self.drop_path(branch)
        residual = self._excited("block", residual, places, shuffle)
        if self.depthwise is None:
            return residual
        patches = _patches(residual, places, shuffle)
        branch = self.drop_path(self.depthwise(patches, (places.rows, places.columns)))
        return residual + _among_class_tokens(branch, places, shuffle)

    def _excited(
        self, where: str, x: Activations, places: Places, shuffle: Shuffle | None
    ) -> Activations:
        if self.squeeze_excitation is None or self.squeezed != where:
            return x
        return self.squeeze_excitation(x, _patches(x, places, shuffle))


def _patches(x: Activations, places: Places, shuffle: Shuffle | None) -> Tensor:
    return places.patches(x if shuffle is None else x.index_select(1, shuffle.back))


def _among_class_tokens(
    branch: Activations, places: Places, shuffle: Shuffle | None
) -> Activations:
    """The branch of the patches in the order of the sequence, 0 for class tokens."""
    nothing = branch.new_zeros(1, 1, branch.shape[2])
    branch = places.with_class_tokens(branch, [nothing] * len(places.class_at))
    return branch if shuffle is None else branch.index_select(1, shuffle.there)
