"""Batches: the order of the data and the loaders, the same for any number of processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

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
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.used = size // batch_size * batch_size or size // world * world
        self.epoch = 0

    def __len__(self) -> int:
        return self.used // self.world

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator)[: self.used]
        return iter(order[self.rank :: self.world].tolist())


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
        sampler = EpochSampler(size, options.batch_size, seed, rank, world)
        return StatefulDataLoader(
            data.train,
            batch_size=_share(options.batch_size, world, "loader.batch_size"),
            sampler=sampler,
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


def _own_generator() -> torch.Generator:
    """Loaders draw a number at every start; from the common generator that would make a resumed
    run, which starts once more, differ from an undisturbed one."""
    return torch.Generator().manual_seed(0)


def _share(batch_size: int, world: int, key: str) -> int:
    if batch_size % world:
        raise ConfigError(f"{key} is {batch_size}, expected a multiple of the {world} processes")
    return batch_size // world
