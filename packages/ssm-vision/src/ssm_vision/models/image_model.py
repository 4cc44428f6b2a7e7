"""What all models of this package are: images in, logits or feature maps out.

The methods have the names and the meaning that timm gives them, so that its feature extraction and
its training script work on every model.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_kernels.errors import DTypeError, ShapeError
from ssm_vision.models.layer_order import layer_order

Images: TypeAlias = Annotated[Tensor, "b c y x"]
FeatureMap: TypeAlias = Annotated[Tensor, "b d y x"]
"""Features of one stage, on its own grid of rows and columns."""
Logits: TypeAlias = Annotated[Tensor, "b classes"]

#: names of parameters inside a stage of blocks, or a block of a model without stages
STAGE = re.compile(r"(?:layers|levels|blocks|layers_up)\.\d+\.")
BLOCK_OF_STAGE = re.compile(STAGE.pattern + r"blocks\.\d+\.")


class Stage(NamedTuple):
    """One place where feature maps can be taken."""

    channels: int
    stride: int
    """pixels of the image per row of the map"""
    name: str
    """of the module that makes it"""


class ImageModel(nn.Module, ABC):
    """Images (b, c, y, x) -> logits (b, classes); see the family's class for sizes and source."""

    #: whether every stage has a map of its own size, as detection and segmentation heads want
    hierarchical: ClassVar[bool]

    def __init__(self, info: DataInfo) -> None:
        """Take channels, image size and classes from the data.

        Raises:
            ConfigError: the data are not images (c, y, x).
        """
        super().__init__()
        if len(info.input_shape) != 3:
            raise ConfigError(
                f"{type(self).__name__} needs images (c, y, x), this data set gives "
                f"{tuple(info.input_shape)}: choose another --model or --data"
            )
        self.info = info
        self.in_chans, height, width = info.input_shape
        self.image_size = (height, width)
        self.num_classes = info.n_outputs
        self.grad_checkpointing = False

    # --- what a family implements ---------------------------------------------------------------

    @property
    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The places of `feature_maps`, from the image to the head."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Channels of what the head reads."""

    @abstractmethod
    def forward_features(self, images: Images) -> Tensor:
        """Everything but pooling and head; `images` as given to `forward`."""

    @abstractmethod
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool what `forward_features` returned and classify it, or stop before the classifier."""

    @abstractmethod
    def feature_maps(self, images: Images, indices: Sequence[int]) -> list[FeatureMap]:
        """Maps (b, d, y, x) of the stages `indices`, in that order; stops after the last needed."""

    @abstractmethod
    def get_classifier(self) -> nn.Module:
        """The last linear map, or an identity after `reset_classifier(0)`."""

    @abstractmethod
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new, untrained classifier in; 0 classes leave the pooled features."""

    # --- what follows from it -------------------------------------------------------------------

    def forward(self, images: Images) -> Logits:
        """Classify images (b, c, y, x): float, normalised as in training, or uint8 (255 becomes 1).

        Raises:
            ShapeError: not (b, c, y, x), another number of channels than the model has, or too
                small for it.
            DTypeError: neither floating point nor uint8.
        """
        return self.forward_head(self.forward_features(images))

    def checked(self, images: Images, least: int = 1) -> Images:
        """Return images as floating point numbers, or say what is wrong with them.

        Args:
            least: pixels that a side must have.
        """
        name = type(self).__name__
        if images.dim() != 4 or images.shape[1] != self.in_chans:
            raise ShapeError(
                f"{name}: images have shape {tuple(images.shape)}, expected (b, c, y, x) with "
                f"c = {self.in_chans} channels"
            )
        if min(images.shape[2:]) < least:
            raise ShapeError(
                f"{name}: images have {images.shape[2]} x {images.shape[3]} pixels, expected at "
                f"least {least} x {least}"
            )
        if images.dtype is torch.uint8:
            return images.to(next(self.parameters()).dtype) / 255
        if not images.is_floating_point():
            raise DTypeError(
                f"{name}: images are {images.dtype}, expected floating point numbers or uint8"
            )
        return images

    def call(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """Call a block, in training with `set_grad_checkpointing` without keeping its inside."""
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: compute the blocks' insides again in the backward pass."""
        self.grad_checkpointing = enable

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """The stages in timm's words."""
        return [
            {"num_chs": stage.channels, "reduction": stage.stride, "module": stage.name}
            for stage in self.stages
        ]

    def forward_intermediates(
        self,
        x: Images,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Feature maps of some stages, in timm's protocol.

        Args:
            indices: a number n for the last n stages, numbers of stages, or None for all.
            norm, stop_early: only False and any; maps are taken before the last norm.
            output_fmt: only "NCHW".
            intermediates_only: return the maps alone, not (features, maps).
        """
        if norm or output_fmt != "NCHW":
            raise ConfigError(
                f"forward_intermediates: norm is {norm!r} and output_fmt {output_fmt!r}, expected "
                "False and 'NCHW'"
            )
        maps = self.feature_maps(x, self.stage_indices(indices))
        return maps if intermediates_only else (self.forward_features(x), maps)

    def stage_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """Numbers of stages as numbers from 0: None means all, n the last n, -1 the last."""
        count = len(self.stages)
        if indices is None:
            return list(range(count))
        if isinstance(indices, int):
            wanted = list(range(count - indices, count)) if 0 < indices <= count else [count]
        else:
            wanted = [i + count if i < 0 else i for i in indices]
        if any(not 0 <= i < count for i in wanted):
            raise ConfigError(
                f"{type(self).__name__}: stages {indices!r}, expected numbers from "
                f"{-count} to {count - 1}"
            )
        return wanted

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """The layer of each parameter by name, for timm's learning rates per layer.

        0 is what comes before the blocks (patches, tokens, positions), then one number per block in
        order, or per stage if `coarse`; what follows a block belongs to it; the last number is the
        classifier's.
        """
        names = [name for name, _ in self.named_parameters()]
        block = BLOCK_OF_STAGE if any(map(BLOCK_OF_STAGE.match, names)) and not coarse else STAGE
        head = {id(parameter) for parameter in self.get_classifier().parameters()}
        blocks: list[str] = []
        layers: dict[str, int] = {}
        for name, parameter in self.named_parameters():
            found = block.match(name)
            if found and found[0] not in blocks:
                blocks.append(found[0])
            if id(parameter) not in head:
                layers[name] = blocks.index(found[0]) + 1 if found else len(blocks)
        return lambda name: layers.get(name, len(blocks) + 1)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would damage, for timm's optimizers."""
        return {n for n, p in self.named_parameters() if getattr(p, "_no_weight_decay", False)}

    # --- what training asks for -----------------------------------------------------------------

    def layer_of(self, name: str) -> int:
        """The place of a parameter between stem (0) and head, for learning rates by layer."""
        return layer_order(n for n, _ in self.named_parameters())[name]

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a trained model as far as this one can begin with them.

        A classifier for other classes is left out. Families with position embeddings resample them.
        """
        classifier = self.get_classifier()
        prefix = next(f"{name}." for name, part in self.named_modules() if part is classifier)
        own = self.state_dict()
        head = [name for name in own if name.startswith(prefix)]
        if all(name in tensors and tensors[name].shape == own[name].shape for name in head):
            return dict(tensors)
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
