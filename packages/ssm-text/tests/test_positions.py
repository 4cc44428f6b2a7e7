from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_core.layers.protocol import StateError
from ssm_text import CharLM, CharLMConfig
from ssm_text.errors import TokenError
from ssm_text.positions import Positions, PositionState

MOST = 10


def make(mixer: str = "transformer") -> CharLM:
    torch.manual_seed(0)
    config = CharLMConfig(d_model=8, mixer=mixer, positions=MOST, norm="layer", bias=False)
    model = CharLM(7, config).double().eval()
    assert model.positions is not None
    with torch.no_grad():  # so that a wrong place cannot hide among rounding errors
        model.positions.weight.mul_(50)
        model.embedding.weight.mul_(50)
    return model


def random_ids(*shape: int) -> torch.Tensor:
    return torch.randint(7, shape, generator=torch.Generator().manual_seed(1))


def test_the_model_says_how_much_it_can_read():
    assert make().context == MOST
    assert CharLM(7).context is None


def test_initial_values():
    torch.manual_seed(0)
    weight = Positions(200, 64).weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)


def test_each_place_has_its_vector():
    """What the tower reads is the embedding plus the place's vector."""
    model, ids, read = make(), random_ids(2, 6), []
    model.tower.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model(ids)
    expected = torch.stack(
        [
            torch.stack([model.embedding.weight[i] + model.positions.weight[t] for t, i in row])
            for row in (list(enumerate(text)) for text in ids.tolist())
        ]
    )
    torch.testing.assert_close(read[0], expected)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, MOST), max_size=4), mixer=st.sampled_from(["rnn", "attention"]))
def test_pieces_and_steps_equal_the_whole(cuts, mixer):
    model, ids = make(mixer), random_ids(2, MOST)
    whole = model(ids)
    bounds, state, pieces = [0, *sorted(cuts), MOST], model.initial_state(2), []
    for start, stop in itertools.pairwise(bounds):
        logits, state = model(ids[:, start:stop], state=state, return_state=True)
        pieces.append(logits)
        assert state[0].seen.tolist() == [stop, stop]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)
    state = model.initial_state(2)
    for t in range(MOST):
        logits, state = model.step(ids[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=3))
def test_padding_takes_no_place(rows):
    """Padding anywhere, in two pieces and a step: each text reads as it does alone."""
    model, mask = make(), torch.tensor(rows)
    mask &= mask.cumsum(1) <= MOST - 1
    ids = random_ids(*mask.shape)
    first, state = model(ids[:, :5], return_state=True, mask=mask[:, :5])
    second, state = model(ids[:, 5:], state=state, return_state=True, mask=mask[:, 5:])
    logits = torch.cat([first, second], 1)
    follow, _ = model.step(ids[:, 0], state)
    for i in range(len(rows)):
        text = ids[i][mask[i]].unsqueeze(0)
        alone = model(torch.cat([text, ids[i : i + 1, :1]], 1))[0]
        torch.testing.assert_close(logits[i][mask[i]], alone[:-1], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(follow[i], alone[-1], rtol=1e-9, atol=1e-9)
        assert state[0].seen[i] == text.shape[1]


def test_order_matters_only_with_positions():
    """Negative control: without them attention predicts the same whatever the order."""
    torch.manual_seed(0)
    plain = CharLM(7, CharLMConfig(d_model=8, mixer="attention", n_layers=1)).double().eval()
    placed, ids = make(), torch.tensor([[1, 2, 3, 4]])
    swapped = ids[:, [1, 0, 2, 3]]
    torch.testing.assert_close(plain(ids)[:, -1], plain(swapped)[:, -1])
    assert not torch.allclose(placed(ids)[:, -1], placed(swapped)[:, -1])


def test_too_long_is_one_line():
    model = make()
    _, state = model(random_ids(1, MOST), return_state=True)
    mask = torch.ones(2, MOST + 1, dtype=torch.bool)
    mask[0, 3] = False  # the first text fits, the second does not
    calls = [
        lambda: model(random_ids(1, MOST + 1)),
        lambda: model.step(random_ids(1), state),
        lambda: model(random_ids(2, MOST + 1), mask=mask),
    ]
    for call in calls:
        with pytest.raises(TokenError, match=r"text of 11 tokens, expected at most 10") as caught:
            call()
        assert "\n" not in str(caught.value)
    mask[1, 0] = False
    assert model(random_ids(2, MOST + 1), mask=mask).shape == (2, MOST + 1, 7)


def test_beyond_the_end_is_nan_where_nobody_looks(monkeypatch):
    """As on an accelerator: no wait for the device, and no vector of another place either."""
    positions = Positions(3, 4)
    monkeypatch.setattr("ssm_text.positions.torch.compiler.is_compiling", lambda: True)
    vectors = positions(random_ids(2, 2), PositionState(torch.tensor([0, 2])), None)
    assert torch.equal(vectors[0], positions.weight[:2])
    assert torch.equal(vectors[1, 0], positions.weight[2])
    assert vectors[1, 1].isnan().all()


def test_states_of_others_are_refused():
    model, ids = make(), random_ids(2, 3)
    with pytest.raises(StateError, match="no PositionState as its first part"):
        model(ids, state=model.tower.initial_state(2))
    with pytest.raises(StateError, match=r"positions of shape \(3,\), expected \(2,\)"):
        model(ids, state=model.initial_state(3))


def test_a_given_state_is_left_alone():
    model = make()
    state = model.initial_state(1)
    model.step(random_ids(1), state)
    assert state[0].seen.tolist() == [0]
