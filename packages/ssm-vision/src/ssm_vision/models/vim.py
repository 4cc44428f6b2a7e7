"""Vision Mamba (Vim): a plain tower of bidirectional Mamba blocks over the patches of an image.

    images (b, c, y, x) -> patches, row by row, with a class token among them (b, l, d)
    + positions -> blocks (b, l, d) -> norm -> class token (b, d) -> logits (b, classes)

Source: Zhu et al. 2024, arXiv:2401.09417, section 3, Algorithm 1 and Table 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor, nn

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_core.init import exempt_from_weight_decay, rescale_residual_branches, zero_linear_biases
from ssm_core.linear import Linear
from ssm_core.norm import at_least_float32, make_norm
from ssm_core.shapes import Activations
from ssm_vision.models.image_model import FeatureMap, ImageModel, Images, Stage
from ssm_vision.models.patch_embedding import PatchEmbedding
from ssm_vision.models.preset import Preset
from ssm_vision.models.vim_block import VimBlock
from ssm_vision.models.vim_config import VimConfig
from ssm_vision.models.vim_tokens import (
    Places,
    Shuffle,
    places_of,
    resampled_positions,
    resampled_positions_extra_first,
)

PatchMap: TypeAlias = Annotated[Tensor, "b rows columns"]
"""One number per patch."""

#: standard deviation of position embeddings, class tokens and the head's weight at the start
SMALL_STD = 0.02


class Vim(ImageModel):
    """Images (b, c, y, x) of any size from one patch on -> logits (b, classes).

    Parameter names and shapes are those of the official checkpoints. So are the initial values, but
    for one: the step sizes of the backward direction start with the law of the forward ones (see
    `ssm_core.layers.bimamba`). Weight decay spares what the published training spares (class
    tokens, position embedding, vectors) and also A_log and A_b_log, which the original marks to be
    spared but decays all the same.

    Images of another size than that of the data the model was built for get a position embedding
    resampled to their grid; for the model's own size it is used as it is.

    With class_token random, training puts the class token of a whole batch at a new place among the
    patches in every forward pass; evaluation puts it in the middle, the mean of these places, so
    that a result does not depend on chance. Whatever its place, its output is what the head reads.

    With pool "all" and no class token the logits are (b, l, classes), one row for every patch.

    Cost: O(b l d (c patch^2 + depth d)) and what the mixers cost over l tokens.
    """

    hierarchical = False

    def __init__(self, config: VimConfig | None, info: DataInfo) -> None:
        """Build the model for the images and classes of `info`.

        Raises:
            ConfigError: the data are not images or smaller than a patch; anything that the mixer
                refuses.
        """
        super().__init__(info)
        self.config = config = config or VimConfig()
        if min(self.image_size) < config.patch_size:
            height, width = self.image_size
            raise ConfigError(
                f"Vim: patch_size is {config.patch_size}, expected at most the sides of the "
                f"image's {height} x {width} pixels"
            )
        d = config.embed_dim
        self.patch_embed = PatchEmbedding(self.in_chans, d, config.patch_size, config.stride)
        self.places = self._places(*self.image_size)
        for name in self._class_token_names:
            self.register_parameter(name, _small(1, 1, d))
        self.pos_embed = _small(1, self.places.length, d) if config.positions else None
        self.pos_drop = nn.Dropout(config.dropout)
        last = max(config.depth - 1, 1)
        # a single block is the last one, with the whole rate
        first = 0 if config.depth > 1 else 1
        self.layers = nn.ModuleList(
            VimBlock(config, config.drop_path * (first + i) / last) for i in range(config.depth)
        )
        self.norm_f = make_norm(config.norm, d)
        self.norm_f.eps = config.norm_eps
        zero_linear_biases(self.layers)
        rescale_residual_branches(self.layers, config.depth, ("out_proj", "project"))
        self.head = self._new_head()

    # --- the contract of image models -----------------------------------------------------------

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every block, all on the grid of patches."""
        d, stride = self.config.embed_dim, self.config.stride
        return tuple(Stage(d, stride, f"layers.{i}") for i in range(len(self.layers)))

    @property
    def num_features(self) -> int:
        """Channels of a token."""
        return self.config.embed_dim

    def forward_features(self, images: Images) -> Activations:
        """All tokens after the last norm (b, l, d), a random class token back in the middle."""
        x, places, shuffle = self._tokens(images)
        for block in self.layers:
            x = self.call(block, x, places, shuffle)
        x = self.norm_f(x)
        return x if shuffle is None else x.index_select(1, shuffle.back)

    def forward_head(self, x: Activations, pre_logits: bool = False) -> Tensor:
        """Pool tokens (b, l, d) and classify them; with `pre_logits` only pool.

        Without a class token and with pool "max" the maximum over tokens is that of the logits.
        """
        pool = self.config.pool
        if self.config.class_token != "none":
            x = self._class_token(x)
        elif pool == "last":
            x = x[:, -1]
        elif pool == "mean":
            x = x.mean(dim=1)
        y = x if pre_logits else self.head(x)
        return y.amax(dim=1) if pool == "max" and y.dim() == 3 else y

    def feature_maps(self, images: Images, indices: Sequence[int]) -> list[FeatureMap]:
        """The residual stream after the blocks `indices`, (b, d, rows, columns), in that order."""
        x, places, shuffle = self._tokens(images)
        maps: dict[int, FeatureMap] = {}
        for i, block in enumerate(self.layers[: max(indices, default=-1) + 1]):
            x = self.call(block, x, places, shuffle)
            if i in indices:
                maps[i] = places.grid(x if shuffle is None else x.index_select(1, shuffle.back))
        return [maps[i] for i in indices]

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in; see `ImageModel`.

        Raises:
            ConfigError: `global_pool` is given: how tokens are pooled belongs to the architecture.
        """
        if global_pool is not None:
            raise ConfigError(
                f"Vim: global_pool is {global_pool!r}, expected None: build the model with another "
                "class_token or pool"
            )
        self.num_classes = num_classes
        self.head = self._new_head().to(self.norm_f.weight)

    # --- checkpoints of other sizes -------------------------------------------------------------

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make the tensors of a Vim for another image size, stride or data set fit for fine-tuning.

        The position embedding is resampled as before the published fine-tuning of the stride-8
        models, see `resampled_positions_extra_first`. A head of another shape is left out. A table
        with as many rows as this model's is taken as it is.

        Returns:
            a new dict; load it with `load_state_dict(.., strict=False)` where the head is left out.
        Raises:
            CheckpointError: the position embedding has no square grid.
        """
        adapted = dict(tensors)
        own = self.state_dict()
        head = ("head.weight", "head.bias")
        if any(n in adapted and n in own and adapted[n].shape != own[n].shape for n in head):
            adapted = {n: tensor for n, tensor in adapted.items() if n not in head}
        table = adapted.get("pos_embed")
        if table is not None and self.pos_embed is not None:
            places = self.places
            if table.shape[1] != places.length:
                adapted["pos_embed"] = resampled_positions_extra_first(
                    table, len(places.class_at), (places.rows, places.columns)
                )
        return adapted

    # --- step sizes -----------------------------------------------------------------------------

    @property
    def has_step_sizes(self) -> bool:
        """Whether every mixer is a Mamba, so that `step_sizes` works."""
        return all(hasattr(block.mixer, "step_sizes") for block in self.layers)

    @torch.no_grad()
    def step_sizes(self, images: Images) -> list[PatchMap]:
        """The mean step size Delta over channels of every patch, (b, rows, columns) per block.

        Large: the block takes the patch in. Small: it keeps what it knew. A bidirectional block
        gives the mean of its two directions. Class tokens are left out. Unit: steps.

        Raises:
            ConfigError: the mixer has no step sizes (it is not a Mamba).
            ShapeError, DTypeError: as for `forward`.
        """
        if not self.has_step_sizes:
            raise ConfigError(
                f"the mixer {self.config.mixer!r} has no step sizes: only Mamba layers have a Delta"
            )
        x, places, shuffle = self._tokens(images)
        maps: list[PatchMap] = []

        def record(mixer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            deltas = mixer.step_sizes(inputs[0]).mean(dim=2, keepdim=True)  # type: ignore[operator]
            deltas = deltas if shuffle is None else deltas.index_select(1, shuffle.back)
            maps.append(places.grid(deltas).squeeze(1))

        mixers: list[Any] = [block.mixer for block in self.layers]
        handles = [mixer.register_forward_pre_hook(record) for mixer in mixers]
        try:
            for block in self.layers:
                x = block(x, places, shuffle)
        finally:
            for handle in handles:
                handle.remove()
        return maps

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _class_token_names(self) -> tuple[str, ...]:
        names = {"none": (), "double": ("cls_token_head", "cls_token_tail")}
        return names.get(self.config.class_token, ("cls_token",))

    def _places(self, height: int, width: int) -> Places:
        return places_of(self.config.class_token, *self.patch_embed.grid(height, width))

    def _tokens(self, images: Images) -> tuple[Activations, Places, Shuffle | None]:
        """What the first block sees, where its tokens are and how they were shuffled."""
        images = self.checked(images, least=self.config.patch_size)
        places = self._places(*images.shape[2:])
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        tokens = [getattr(self, name) for name in self._class_token_names]
        x = places.with_class_tokens(patches, tokens)
        shuffle: Shuffle | None = None
        if self.config.class_token == "random" and self.training:
            shuffle = Shuffle.moving_class_token(places, x.device)
            x = x.index_select(1, shuffle.there)
        if self.pos_embed is not None:
            # after shuffling: a row belongs to a place in the sequence, whatever stands there
            x = x + resampled_positions(self.pos_embed, self.places, places)
        return self.pos_drop(at_least_float32(x)), places, shuffle

    def _class_token(self, x: Activations) -> Tensor:
        """The output of the class token, or the mean of both, (b, d)."""
        if self.config.class_token == "double":
            return (x[:, 0] + x[:, -1]) / 2
        place = 0 if self.config.class_token == "head" else (x.shape[1] - 1) // 2
        return x[:, place]

    def _new_head(self) -> nn.Module:
        if not self.num_classes:
            return nn.Identity()
        head = Linear(self.config.embed_dim, self.num_classes)
        nn.init.trunc_normal_(head.weight, std=SMALL_STD)
        nn.init.zeros_(head.bias)
        return head


def _small(*shape: int) -> nn.Parameter:
    """A parameter of small random numbers that weight decay spares."""
    tensor = torch.empty(shape)
    nn.init.trunc_normal_(tensor, std=SMALL_STD)
    return exempt_from_weight_decay(nn.Parameter(tensor))


PRESETS: dict[str, Preset] = {
    f"vim_{size}_patch16_{'stride8_' if stride == 8 else ''}224": Preset(
        Vim, VimConfig(embed_dim=embed_dim, stride=stride)
    )
    for size, embed_dim, strides in (
        ("tiny", 192, (16, 8)),
        ("small", 384, (16, 8)),
        ("base", 768, (16,)),
    )
    for stride in strides
}
