"""The task of naming what every pixel shows: Dice and cross-entropy, Dice and IoU over all pixels.

One output is a binary mask (sigmoid: foreground or not), more outputs are classes that exclude each
other (softmax). Targets below 0 are not counted, neither in the loss nor in the metrics.

Source: Ruan et al. 2024, arXiv:2402.02491 (VM-UNet), section 3.4; Milletari et al. 2016,
arXiv:1606.04797 (the Dice loss with squares).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core import DataInfo, Task
from ssm_core.errors import ConfigError
from ssm_kernels.errors import ShapeError

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

PixelLogits: TypeAlias = Annotated[Tensor, "b classes y x"]
Targets: TypeAlias = Annotated[Tensor, "b y x"]
"""Numbers of classes, int64; in a binary mask 1 is the foreground; below 0: not counted."""
Form = Literal["isic", "synapse"]

#: added to both sides of the fraction by the published trainings
SMOOTHING: dict[Form, float] = {"isic": 1.0, "synapse": 1e-5}


@dataclass(frozen=True)
class SegmentationOptions:
    """One class per pixel.

    Args:
        dice_weight: of the Dice loss.
        cross_entropy_weight: of the cross-entropy (binary for one output).
        form: Dice loss of the published trainings: isic (a fraction per image, plain sums below),
            synapse (one fraction per class over the whole batch, squares below), or auto: isic for
            one output, synapse for more.
        smoothing: added above and below in the Dice fraction; null: 1 for isic, 1e-5 for synapse.
        ignore_index: class that is not counted; null: none (numbers below 0 never are).
    """

    dice_weight: float = 1.0
    cross_entropy_weight: float = 1.0
    form: Literal["auto", "isic", "synapse"] = "auto"
    smoothing: float | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        for name in ("dice_weight", "cross_entropy_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"task.{name} is {getattr(self, name)}, expected 0 or more")
        if self.dice_weight == 0 == self.cross_entropy_weight:
            raise ConfigError(
                "task.dice_weight and task.cross_entropy_weight are both 0: nothing would be learnt"
            )
        if self.form not in ("auto", "isic", "synapse"):
            raise ConfigError(f"task.form is {self.form!r}, expected auto, isic or synapse")
        if self.smoothing is not None and self.smoothing <= 0:
            raise ConfigError(f"task.smoothing is {self.smoothing}, expected a number above 0")


class Segmentation(Task):
    """Batches are (images (b, c, y, x), targets (b, y, x) int64), the model gives logits
    (b, classes, y, x), before any sigmoid or softmax."""

    monitor: ClassVar[str] = "dice"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, options: SegmentationOptions, info: DataInfo) -> None:
        self.options, self.info = options, info
        usual: Form = "isic" if info.n_outputs == 1 else "synapse"
        self.form: Form = usual if options.form == "auto" else options.form
        own = options.smoothing
        self.smoothing = SMOOTHING[self.form] if own is None else own

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, PixelLogits]:
        """Weighted sum of the Dice loss and the mean cross-entropy, and the logits.

        Raises:
            ShapeError: the logits are not one per class and pixel of the targets.
        """
        images, targets = batch
        logits = model(images)
        expected = (targets.shape[0], self.info.n_outputs, *targets.shape[1:])
        if tuple(logits.shape) != expected:
            raise ShapeError(
                f"segmentation: the model gives logits of shape {tuple(logits.shape)} for targets "
                f"{tuple(targets.shape)}, expected (b, classes, y, x) = {expected}: choose a model "
                "that classifies pixels"
            )
        scores, targets = logits.float(), self._counted(targets)
        loss = scores.new_zeros(())
        if self.options.dice_weight:
            dice = dice_loss(scores, targets, self.form, self.smoothing)
            loss = loss + self.options.dice_weight * dice
        if self.options.cross_entropy_weight:
            loss = loss + self.options.cross_entropy_weight * cross_entropy(scores, targets)
        return loss, logits

    def metrics(self) -> MetricCollection:
        """All over the pixels of all images together, 0..1.

        `dice` and `iou`: of the foreground for one output, else the mean over the classes that
        occur in truth or prediction. `pixel_accuracy`. For one output also `dice_background`: the
        Dice of what is not foreground.
        """
        from torchmetrics import Metric, MetricCollection

        from ssm_vision.segmentation_metrics import Dice, IoU, PixelAccuracy

        classes = max(self.info.n_outputs, 2)
        chosen = 1 if self.info.n_outputs == 1 else None
        metrics: dict[str, Metric | MetricCollection] = {
            "dice": Dice(classes, chosen),
            "iou": IoU(classes, chosen),
            "pixel_accuracy": PixelAccuracy(classes),
        }
        if chosen is not None:
            metrics["dice_background"] = Dice(classes, 0)
        return MetricCollection(metrics)

    def update(self, metrics: MetricCollection, outputs: PixelLogits, batch: Any) -> None:
        """Add one batch to the metrics: a probability above 0.5, or the most likely class."""
        metrics.update(predicted(outputs), self._counted(batch[1]))

    def count(self, batch: Any) -> int:
        """How many images the mean loss of this batch averages over."""
        return len(batch[1])

    def _counted(self, targets: Targets) -> Targets:
        """The targets with -1 where they are not to be counted."""
        ignored = self.options.ignore_index
        return targets if ignored is None else targets.masked_fill(targets == ignored, -1)


def predicted(logits: PixelLogits) -> Targets:
    """The class of every pixel, (b, y, x) int64; of one output 1 where its sigmoid is above 0.5."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def cross_entropy(logits: PixelLogits, targets: Targets) -> Tensor:
    """Mean over the counted pixels; 0 if there are none."""
    counted = targets >= 0
    if logits.shape[1] == 1:
        known = targets.clamp(min=0).to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(logits[:, 0], known, reduction="none")
    else:
        each = F.cross_entropy(logits, targets.clamp(min=0), reduction="none")
    return (each * counted).sum() / counted.sum().clamp(min=1)


def dice_loss(logits: PixelLogits, targets: Targets, form: Form, smoothing: float) -> Tensor:
    """1 - the mean of (2 sum(p t) + s) / (sum(p) + sum(t) + s), p probabilities and t truth.

    "isic": a fraction per image (and class). "synapse": a fraction per class, over all images of
    the batch, with squares of p and t in the denominator.
    """
    counted = (targets >= 0).unsqueeze(1)
    known = targets.clamp(min=0)
    if logits.shape[1] == 1:
        p, t = logits.sigmoid(), known.unsqueeze(1)
    else:
        p, t = logits.softmax(dim=1), F.one_hot(known, logits.shape[1]).movedim(3, 1)
    p, t = p * counted, (t * counted).to(p.dtype)
    axes = (2, 3) if form == "isic" else (0, 2, 3)
    both = (p * t).sum(axes)
    sizes = (p + t if form == "isic" else p.square() + t).sum(axes)  # t is 0 or 1, as its square
    fractions = (2 * both + smoothing) / (sizes + smoothing)
    return 1 - fractions.sum() / max(fractions.numel(), 1)  # an empty batch has a loss too
