import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from ssm_core import DataBundle, DataInfo
from ssm_core.errors import ConfigError
from ssm_core.train.batches import (
    EpochSampler,
    ShardSampler,
    batch_parts,
    eval_loader,
    train_loader,
)
from ssm_core.train.options import LoaderOptions


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(0, 200),
    per_rank=st.integers(1, 9),
    world=st.integers(1, 4),
    epoch=st.integers(0, 5),
)
def test_epoch_sampler_processes_together_are_one_process(size, per_rank, world, epoch):
    batch = per_rank * world
    alone = EpochSampler(size, batch, seed=3)
    alone.epoch = epoch
    order = list(alone)
    shards = []
    for rank in range(world):
        shard = EpochSampler(size, batch, seed=3, rank=rank, world=world)
        shard.epoch = epoch
        assert len(shard) == len(list(shard))
        shards.append(list(shard))
    assert len({len(s) for s in shards}) == 1
    assert len(set(order)) == len(order)
    for step in range(len(order) // batch):
        joined = [i for s in shards for i in s[step * per_rank : (step + 1) * per_rank]]
        assert sorted(joined) == sorted(order[step * batch : (step + 1) * batch])


def test_epoch_sampler_small_data_is_used_whole():
    assert sorted(EpochSampler(5, 64, seed=0)) == [0, 1, 2, 3, 4]


def test_epoch_sampler_epochs_differ_and_repeat():
    sampler = EpochSampler(50, 10, seed=0)
    first = list(sampler)
    assert list(sampler) == first
    sampler.epoch = 1
    assert list(sampler) != first


@given(size=st.integers(0, 60), world=st.integers(1, 4))
def test_shard_sampler_every_example_once(size, world):
    places = [i for rank in range(world) for i in ShardSampler(size, rank, world)]
    assert sorted(places) == list(range(size))


def bundle(size: int = 40) -> DataBundle:
    data = TensorDataset(torch.arange(size), torch.arange(size))
    return DataBundle(data, data, DataInfo((1,), 2))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [0, 1, 3])
def test_train_loader_goes_on_in_the_middle(workers, done):
    options = LoaderOptions(batch_size=8, num_workers=workers)
    loader = train_loader(bundle(), options, seed=1, rank=0, world=1)
    iterator = iter(loader)
    for _ in range(done):
        next(iterator)
    state = loader.state_dict()
    rest = [batch[0].tolist() for batch in iterator]
    again = train_loader(bundle(), options, seed=1, rank=0, world=1)
    again.load_state_dict(state)
    assert [batch[0].tolist() for batch in again] == rest
    assert len(rest) == 5 - done


def test_starting_a_loader_draws_nothing_from_the_common_generator():
    before = torch.get_rng_state()
    next(iter(train_loader(bundle(), LoaderOptions(), seed=1, rank=0, world=1)))
    next(iter(eval_loader(bundle(), LoaderOptions(), rank=0, world=1)))
    assert torch.equal(before, torch.get_rng_state())


def test_batch_size_must_divide_by_the_processes():
    with pytest.raises(ConfigError, match=r"loader.batch_size is 9, expected a multiple of the 2"):
        train_loader(bundle(), LoaderOptions(batch_size=9), seed=1, rank=0, world=2)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(4, 60), repeats=st.integers(1, 4), world=st.integers(1, 4))
def test_repeats_come_in_a_row_and_are_dealt_out(size, repeats, world):
    together = list(EpochSampler(size, world, seed=2, repeats=repeats))
    once = list(EpochSampler(size, world, seed=2))
    assert len(together) == len(once)
    in_a_row = [i for i in EpochSampler(size, 1, seed=2) for _ in range(repeats)]
    assert together == in_a_row[: len(once)]
    shards = [list(EpochSampler(size, world, 2, rank, world, repeats)) for rank in range(world)]
    assert [i for row in zip(*shards, strict=True) for i in row] == together


class Noisy(TensorDataset):
    """Adds noise from torch's generator to every example, as augmentation does."""

    def __getitem__(self, index):
        return tuple(t + torch.rand(()) for t in super().__getitem__(index))

    __getitems__ = None


def noise(workers, *, epoch=0, rank=0, world=1, skip=0, repeats=1):
    data = Noisy(torch.arange(24.0))
    options = LoaderOptions(batch_size=8, num_workers=workers, repeats=repeats)
    bundle = DataBundle(data, data, DataInfo((1,), 2))
    loader = train_loader(bundle, options, seed=5, rank=rank, world=world)
    loader.sampler.epoch = epoch
    if skip:
        iterator = iter(loader)
        for _ in range(skip):
            next(iterator)
        state = loader.state_dict()
        loader = train_loader(bundle, options, seed=5, rank=rank, world=world)
        loader.sampler.epoch = epoch
        loader.load_state_dict(state)
    return torch.cat([batch[0] for batch in loader])


def test_augmentation_depends_on_the_place_alone():
    alone = noise(0)
    assert torch.equal(noise(2), alone)
    assert torch.equal(noise(0, skip=1), alone[8:])
    assert torch.equal(noise(2, skip=2), alone[16:])
    assert not torch.equal(noise(0, epoch=1), alone)
    fractions = (alone % 1).tolist()
    assert len(set(fractions)) == 24


def test_repeats_and_processes_draw_different_noise():
    shards = [noise(0, rank=rank, world=2, repeats=2) for rank in range(2)]
    assert torch.equal(shards[0].floor(), shards[1].floor())
    assert not bool(torch.isclose(shards[0], shards[1]).any())


def test_loading_leaves_the_common_generator_alone():
    before = torch.get_rng_state()
    noise(0)
    assert torch.equal(before, torch.get_rng_state())


@given(size=st.integers(0, 9), count=st.integers(1, 5))
def test_batch_parts_put_together_are_the_batch(size, count):
    batch = [torch.arange(size), {"a": torch.arange(2 * size).view(size, 2)}]
    parts = batch_parts(batch, count)
    assert len(parts) == (1 if count == 1 else min(count, max(1, size)))
    assert torch.equal(torch.cat([part[0] for part in parts]), batch[0])
    assert torch.equal(torch.cat([part[1]["a"] for part in parts]), batch[1]["a"])
    sizes = [len(part[0]) for part in parts]
    assert max(sizes) - min(sizes) <= 1
