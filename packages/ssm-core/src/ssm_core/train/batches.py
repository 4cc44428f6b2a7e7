"""Batches: the order of the data and the loaders, the same for any number of processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ssm_core.errors import ConfigError
from ssm_core.specs import DataBundle
from ssm_core.train.options import LoaderOptions


class EpochSampler(Sampler[int]):
    """A shuffle that depends on the seed and the epoch alone, dealt out to `world` processes.

    Process r takes places r, r + world, ... of the common order, so that the batches of all
    processes together are the batches that one process would have had.

    Args:
        size: examples in the data set.
        batch_size: of all processes together; an incomplete last batch is left out, unless it is
            the only one.
        repeats: how often in a row an example is drawn. The epoch stays as long, so that it sees
            one part in `repeats` of the examples; where the processes are as many, each has one of
            the copies. Source: Hoffer et al. 2020, arXiv:1901.09335; as in DeiT, arXiv:2012.12877.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        repeats: int = 1,
    ):
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.repeats = repeats
        self.used = size // batch_size * batch_size or size // world * world
        self.epoch = 0

    def __len__(self) -> int:
        return self.used // self.world

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator)
        order = order.repeat_interleave(self.repeats)[: self.used]
        return iter(order[self.rank :: self.world].tolist())


class SeededSampler(Sampler[tuple[int, int]]):
    """Pairs (index, seed) for `SeededData`: a seed of its own for every place of every epoch."""

    def __init__(self, order: EpochSampler):
        self.order = order

    @property
    def epoch(self) -> int:
        """The epoch whose order comes next."""
        return self.order.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.order.epoch = epoch

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = self.order
        generator = torch.Generator().manual_seed(order.seed * 1_000_003 + order.epoch)
        generator.manual_seed(int(torch.randint(2**62, (), generator=generator)) + order.rank)
        seeds = torch.randint(2**62, (len(order),), generator=generator)
        return zip(order, seeds.tolist(), strict=True)


class SeededData(Dataset[Any]):
    """A data set whose random draws (augmentation) depend on the place in the epoch alone.

    So the numbers of a run do not depend on how many loader processes it has, nor on whether it was
    killed and resumed. Torch's own generator is the one that is seeded, and put back afterwards.
    """

    def __init__(self, data: Dataset[Any]):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> Any:
        """The batch of these (index, seed): in one call where the data set can, else one by one."""
        before = torch.get_rng_state()
        try:
            whole = getattr(self.data, "__getitems__", None)
            if whole is not None:
                torch.default_generator.manual_seed(places[0][1])
                return whole([index for index, _ in places])
            return [self._one(index, seed) for index, seed in places]
        finally:
            torch.set_rng_state(before)

    def _one(self, index: int, seed: int) -> Any:
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: GPUs keep theirs
        return self.data[index]


class ShardSampler(Sampler[int]):
    """Every `world`-th example in order, none twice: for evaluation."""

    def __init__(self, size: int, rank: int = 0, world: int = 1):
        self.places = range(rank, size, world)

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)


def train_loader(
    data: DataBundle, options: LoaderOptions, seed: int, rank: int, world: int
) -> DataLoader[Any]:
    """A loader that can stop in the middle of an epoch and go on there (`state_dict`)."""
    with warnings.catch_warnings():  # torchdata marks itself in a way that torch deprecates
        warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
        from torchdata.stateful_dataloader import StatefulDataLoader

        size = len(data.train)  # type: ignore[arg-type]
        order = EpochSampler(size, options.batch_size, seed, rank, world, options.repeats)
        return StatefulDataLoader(
            SeededData(data.train),
            batch_size=_share(options.batch_size, world, "loader.batch_size"),
            sampler=SeededSampler(order),
            num_workers=options.num_workers,
            collate_fn=data.collate,
            generator=_own_generator(),
        )


def eval_loader(data: DataBundle, options: LoaderOptions, rank: int, world: int) -> DataLoader[Any]:
    """A loader over the evaluation data, each example once over all processes."""
    return DataLoader(
        data.evaluation,
        batch_size=_share(options.eval_batch_size, world, "loader.eval_batch_size"),
        sampler=ShardSampler(len(data.evaluation), rank, world),  # type: ignore[arg-type]
        num_workers=options.num_workers,
        collate_fn=data.collate,
        generator=_own_generator(),
    )


def batch_parts(batch: Any, count: int) -> list[Any]:
    """Cut a batch along its first axis into `count` parts of nearly equal size, fewer if it is
    shorter; tuples, lists and mappings of tensors are cut alike."""
    if count == 1:
        return [batch]
    if isinstance(batch, torch.Tensor):
        return list(batch.tensor_split(min(count, max(1, len(batch)))))
    if isinstance(batch, Mapping):
        columns = [batch_parts(value, count) for value in batch.values()]
        return [dict(zip(batch, row, strict=True)) for row in zip(*columns, strict=True)]
    columns = [batch_parts(value, count) for value in batch]
    return [tuple(row) for row in zip(*columns, strict=True)]


def _own_generator() -> torch.Generator:
    """Loaders draw a number at every start; from the common generator that would make a resumed
    run, which starts once more, differ from an undisturbed one."""
    return torch.Generator().manual_seed(0)


def _share(batch_size: int, world: int, key: str) -> int:
    if batch_size % world:
        raise ConfigError(f"{key} is {batch_size}, expected a multiple of the {world} processes")
    return batch_size // world
