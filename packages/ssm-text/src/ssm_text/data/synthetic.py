"""Datasets `copying`, `selective-copying` and `induction-heads`: memory, made from a seed.

Training examples are drawn anew in every epoch, evaluation examples once; only the answers are
targets. Sources: Gu & Dao 2023, arXiv:2312.00752, section 4.1 and figure 2; Arjovsky et al. 2016,
arXiv:1511.06464 (copying); Fu et al. 2023, arXiv:2212.14052, section 3.1 (induction heads).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError
from ssm_text.data.windows import IGNORED, Pair, take_batch

#: what data tokens look like when a model of such a task generates
LETTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits
NOISE, MARKER = ".", "?"

#: b examples of the task: inputs (b, l) and targets (b, l), drawn by a generator
Draw = Callable[[int, torch.Generator | None], Pair]


@dataclass(frozen=True)
class SyntheticConfig:
    """What all synthetic tasks can be told.

    Args:
        length: steps before the first answer.
        vocabulary: different data tokens.
        train_examples: examples per epoch, drawn anew in each.
        eval_examples: examples to evaluate on, always the same.
        seed: of the evaluation examples; those to train on follow from trainer.seed.
    """

    length: int = 64
    vocabulary: int = 16
    train_examples: int = 10_000
    eval_examples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for key, least in (("length", 2), ("train_examples", 1), ("eval_examples", 1)):
            if getattr(self, key) < least:
                raise ConfigError(f"data.{key} is {getattr(self, key)}, expected {least} or more")
        if not 2 <= self.vocabulary <= len(LETTERS):
            raise ConfigError(f"data.vocabulary is {self.vocabulary}, expected 2 to {len(LETTERS)}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"data.seed is {self.seed}, expected 0 to 2^63 - 1")


@dataclass(frozen=True)
class CopyingConfig(SyntheticConfig):
    """Repeat the data tokens, in their order, at as many markers behind the sequence.

    Args:
        length: steps before the first answer.
        vocabulary: different data tokens.
        train_examples: examples per epoch, drawn anew in each.
        eval_examples: examples to evaluate on, always the same.
        seed: of the evaluation examples; those to train on follow from trainer.seed.
        tokens: data tokens to remember; the rest of `length` is noise.
    """

    tokens: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.tokens <= self.length:
            raise ConfigError(
                f"data.tokens is {self.tokens}, expected 1 to data.length = {self.length}"
            )


class DrawnExamples(Dataset[Pair]):
    """Training examples: whatever the index, new ones from torch's own generator.

    The loader seeds that generator for every place of every epoch, so that a resumed run sees the
    examples that it would have seen.
    """

    def __init__(self, size: int, draw: Draw) -> None:
        self.size, self.draw = size, draw

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Pair:
        """Inputs (l,) and targets (l,), int64."""
        if not 0 <= index < self.size:
            raise IndexError(f"example {index} of {self.size}")
        inputs, targets = self.draw(1, None)
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Pair:
        """A whole batch at once: inputs (b, l) and targets (b, l), int64."""
        return self.draw(len(indices), None)


class FixedExamples(Dataset[Pair]):
    """Evaluation examples, drawn once."""

    def __init__(self, pair: Pair) -> None:
        self.inputs, self.targets = pair

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Pair:
        """Inputs (l,) and targets (l,), int64."""
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> Pair:
        """A whole batch at once: inputs (b, l) and targets (b, l), int64."""
        places = torch.as_tensor(indices)
        return self.inputs[places], self.targets[places]


def build_copying(config: CopyingConfig) -> DataBundle:
    """Data tokens at the start, then noise: always the same distance to the answers."""
    return _bundle(config, config.length + config.tokens, partial(_copying, config))


def build_selective_copying(config: CopyingConfig) -> DataBundle:
    """Data tokens anywhere among the noise: what to keep depends on what it is."""
    return _bundle(config, config.length + config.tokens, partial(_selective_copying, config))


def build_induction_heads(config: SyntheticConfig) -> DataBundle:
    """A marker among data tokens and again at the end: say the token that followed the first."""
    return _bundle(config, config.length + 1, partial(_induction_heads, config), (MARKER,))


def _copying(config: CopyingConfig, count: int, generator: torch.Generator | None) -> Pair:
    return _to_copy(config, torch.arange(config.tokens).expand(count, -1), generator)


def _selective_copying(
    config: CopyingConfig, count: int, generator: torch.Generator | None
) -> Pair:
    # the places of the largest of random numbers are a random choice without repetition
    numbers = torch.rand(count, config.length, generator=generator)
    places = numbers.topk(config.tokens, dim=1).indices.sort(dim=1).values
    return _to_copy(config, places, generator)


def _induction_heads(
    config: SyntheticConfig, count: int, generator: torch.Generator | None
) -> Pair:
    inputs = torch.randint(config.vocabulary, (count, config.length + 1), generator=generator)
    # not the last place before the end, whose follower would be the second marker
    place = torch.randint(config.length - 1, (count, 1), generator=generator)
    marker = config.vocabulary
    inputs.scatter_(1, place, marker)
    inputs[:, -1] = marker
    targets = torch.full_like(inputs, IGNORED)
    targets[:, -1] = inputs.gather(1, place + 1).squeeze(1)
    return inputs, targets


def _to_copy(config: CopyingConfig, places: Tensor, generator: torch.Generator | None) -> Pair:
    """Data tokens at `places` (b, tokens), noise between, then markers with the answers."""
    count, tokens = places.shape
    data = torch.randint(config.vocabulary, (count, tokens), generator=generator)
    noise, marker = config.vocabulary, config.vocabulary + 1
    inputs = torch.full((count, config.length + tokens), noise)
    inputs.scatter_(1, places, data)
    inputs[:, config.length :] = marker
    targets = torch.full_like(inputs, IGNORED)
    targets[:, config.length :] = data
    return inputs, targets


def _bundle(
    config: SyntheticConfig, length: int, draw: Draw, extra: tuple[str, ...] = (NOISE, MARKER)
) -> DataBundle:
    labels = (*LETTERS[: config.vocabulary], *extra)
    return DataBundle(
        train=DrawnExamples(config.train_examples, draw),
        evaluation=FixedExamples(
            draw(config.eval_examples, torch.Generator().manual_seed(config.seed))
        ),
        info=DataInfo((length,), len(labels), labels),
        collate=take_batch,
    )
