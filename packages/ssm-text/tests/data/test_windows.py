from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssm_core.errors import ConfigError, DataError
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.data.windows import (
    IGNORED,
    TextWindows,
    WindowOptions,
    make_bundle,
    split,
    take_batch,
)

sizes = st.integers(0, 40)
contexts = st.integers(1, 12)


@given(length=sizes, context=contexts, stride=contexts)
def test_training_windows(length, context, stride):
    ids = torch.arange(length)
    windows = TextWindows(ids, context, stride)
    starts = [s for s in range(0, length, stride) if s + context + 1 <= length]
    assert len(windows) == len(starts)
    for i, start in enumerate(starts):
        inputs, targets = windows[i]
        assert inputs.tolist() == list(range(start, start + context))
        assert targets.tolist() == list(range(start + 1, start + context + 1))


@given(length=sizes, context=contexts)
def test_evaluation_windows_predict_everything_once(length, context):
    ids = torch.arange(length)
    windows = TextWindows(ids, context, context, pad_last=True)
    targets = [t for i in range(len(windows)) for t in windows[i][1].tolist() if t != IGNORED]
    assert targets == list(range(1, length))
    for i in range(len(windows)):
        inputs, wanted = windows[i]
        counted = wanted != IGNORED
        assert counted.any()  # no window of padding alone
        assert torch.equal(inputs[counted] + 1, wanted[counted])
        assert inputs.min() >= 0  # padding is a valid id


@given(length=sizes, context=contexts, stride=contexts)
def test_padding_with_overlap_still_reaches_the_end(length, context, stride):
    windows = TextWindows(torch.arange(length), context, min(stride, context), pad_last=True)
    targets = {t for i in range(len(windows)) for t in windows[i][1].tolist()} - {IGNORED}
    assert targets == set(range(1, length))


@given(st.data())
def test_whole_batches_equal_single_windows(data):
    length, context, stride = data.draw(st.integers(14, 40)), 6, data.draw(st.integers(1, 6))
    windows = TextWindows(torch.arange(length), context, stride, pad_last=data.draw(st.booleans()))
    indices = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=9))
    inputs, targets = windows.__getitems__(indices)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    for row, index in enumerate(indices):
        assert torch.equal(inputs[row], windows[index][0])
        assert torch.equal(targets[row], windows[index][1])


def test_a_batch_is_a_copy():
    windows = TextWindows(torch.arange(20), 4, 4)
    windows.__getitems__([0, 1])[0].zero_()
    assert windows[1][0].tolist() == [4, 5, 6, 7]


def test_outside_index_is_refused():
    windows = TextWindows(torch.arange(20), 4, 4)
    for index in (-1, 4):
        with pytest.raises(IndexError, match=f"window {index} of 4"):
            windows[index]


def test_pickles_for_loader_processes():
    windows = TextWindows(torch.arange(20), 4, 2)
    again = pickle.loads(pickle.dumps(windows))
    assert len(again) == len(windows)
    assert torch.equal(again[3][1], windows[3][1])


def test_bundle_through_a_loader():
    vocabulary = Vocabulary("ab\n")
    train, evaluation = split(vocabulary.encode("abba\nab\n" * 10))
    assert (len(train), len(evaluation)) == (72, 8)
    bundle = make_bundle(train, evaluation, vocabulary, WindowOptions(context=5), "text")
    assert bundle.info.input_shape == (5,)
    assert bundle.info.n_outputs == 3
    assert bundle.info.labels == ("a", "b", "\n")
    loader = torch.utils.data.DataLoader(
        bundle.train, batch_size=4, shuffle=True, collate_fn=bundle.collate
    )
    shapes = {(tuple(ids.shape), tuple(targets.shape)) for ids, targets in loader}
    assert shapes == {((4, 5), (4, 5)), ((2, 5), (2, 5))}
    assert len(bundle.evaluation) == 2


def test_take_batch_returns_its_argument():
    batch = (torch.zeros(1), torch.ones(1))
    assert take_batch(batch) is batch


@pytest.mark.parametrize(("train", "evaluation"), [(5, 2), (0, 2), (6, 1), (6, 0)])
def test_short_text_is_refused(train, evaluation):
    vocabulary = Vocabulary("ab")
    with pytest.raises(DataError, match=r"play: .* expected at least 6 and 2; .*--data\.context"):
        make_bundle(
            torch.zeros(train, dtype=torch.int64),
            torch.zeros(evaluation, dtype=torch.int64),
            vocabulary,
            WindowOptions(context=5),
            "play",
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, r"data\.context is 0"),
        ({"stride": 0}, r"data\.stride is 0, expected null or 1 to data\.context = 128"),
        ({"context": 8, "stride": 9}, r"data\.stride is 9"),
    ],
)
def test_options_refuse(options, message):
    with pytest.raises(ConfigError, match=message):
        WindowOptions(**options)
