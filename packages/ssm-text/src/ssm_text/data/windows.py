"""A long text as examples of a fixed length: inputs, and targets one character later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError, DataError
from ssm_text.data.vocabulary import Vocabulary

#: target of the padding behind the last evaluation window; not counted by loss and metrics
IGNORED = -100

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class WindowOptions:
    """How a text is cut into examples; the options that all text datasets share.

    Args:
        context: characters per example.
        stride: characters between the starts of two training examples; null means `context`, so
            that they do not overlap. With 1, shuffled, every place of the text can start one.
    """

    context: int = 128
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.context < 1:
            raise ConfigError(f"data.context is {self.context}, expected 1 or more")
        if self.stride is not None and not 1 <= self.stride <= self.context:
            raise ConfigError(
                f"data.stride is {self.stride}, expected null or 1 to data.context = {self.context}"
            )


class TextWindows(Dataset[Pair]):
    """Example i: characters [i stride, i stride + context) and the same shifted by one.

    Map-style and without randomness: the loader shuffles, so a resumed run sees the same examples.

    Args:
        ids: (l,) the text.
        context: characters per example.
        stride: characters between the starts of two examples.
        pad_last: pad the text so that every character but the first is the target of a window;
            padded targets are `IGNORED`. Otherwise only whole windows count.
    """

    def __init__(self, ids: Tensor, context: int, stride: int, pad_last: bool = False) -> None:
        self._count = count_windows(len(ids), context, stride, pad_last)
        padding = max((self._count - 1) * stride + context + 1 - len(ids), 0) if self._count else 0
        # int32: half the memory of int64, and room for every Unicode character
        self._ids = F.pad(ids.int(), (0, padding), value=IGNORED)
        self.context, self.stride = context, stride

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Pair:
        """Inputs (l,) and targets (l,), int64."""
        if not 0 <= index < self._count:
            raise IndexError(f"window {index} of {self._count}")
        start = index * self.stride
        return shifted(self._ids[start : start + self.context + 1])

    def __getitems__(self, indices: Sequence[int]) -> Pair:
        """A whole batch at once: inputs (b, l) and targets (b, l), int64."""
        windows = self._ids.unfold(0, self.context + 1, self.stride)  # a view, nothing is copied
        return shifted(windows[torch.as_tensor(indices)])


def count_windows(length: int, context: int, stride: int, pad_last: bool) -> int:
    """How many windows `TextWindows` has over a text of `length` tokens."""
    n_targets = max(length - 1, 0)
    behind = n_targets - context  # targets behind the first window
    if pad_last:
        return -(-max(behind, 0) // stride) + 1 if n_targets else 0
    return behind // stride + 1 if behind >= 0 else 0


def shifted(windows: Tensor) -> Pair:
    """Inputs (.., l) and targets (.., l), int64, of windows (.., l + 1) with padding `IGNORED`."""
    windows = windows.long()
    # padding becomes id 0; what a causal model says after it has no target
    return windows[..., :-1].clamp(min=0), windows[..., 1:].contiguous()


def take_batch(batch: Any) -> Any:
    """The collate function of whole-batch datasets: the batch is ready."""
    return batch


def make_bundle(
    train: Tensor, evaluation: Tensor, vocabulary: Vocabulary, options: WindowOptions, source: str
) -> DataBundle:
    """Training windows and gapless evaluation windows over two texts.

    Args:
        train: (l,) ids to learn from.
        evaluation: (l,) held-out ids; the windows over them do not overlap and leave nothing out.
        source: what the text is called in errors.
    Raises:
        DataError: a text too short for one window.
    """
    context, stride = options.context, options.stride or options.context
    check_lengths(source, len(train), len(evaluation), context)
    return DataBundle(
        train=TextWindows(train, context, stride),
        evaluation=TextWindows(evaluation, context, context, pad_last=True),
        info=DataInfo((context,), len(vocabulary), vocabulary.characters),
        collate=take_batch,
    )


def check_lengths(
    source: str, train: int, evaluation: int, context: int, unit: str = "characters"
) -> None:
    """Check that there is enough for a training window and for a target to evaluate on.

    Raises:
        DataError: there is not.
    """
    if train < context + 1 or evaluation < 2:
        raise DataError(
            f"{source}: {train} {unit} to train on and {evaluation} held out, "
            f"expected at least {context + 1} and 2; use a longer text or a smaller --data.context"
        )


def split(ids: Tensor, train_frac: float = 0.9) -> Pair:
    """The first `train_frac` of a text (l,), and the rest."""
    cut = int(len(ids) * train_frac)
    return ids[:cut], ids[cut:]
