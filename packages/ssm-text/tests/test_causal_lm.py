from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_text import CharLM, CharLMConfig


@settings(max_examples=20, deadline=None)
@given(
    rows=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3),
    mixer=st.sampled_from(["mamba", "mamba2", "s4d", "rnn", "transformer"]),
)
def test_padding_changes_nothing(rows, mixer):
    """Wherever the padding is, each text has the logits and the state it has alone."""
    torch.manual_seed(0)
    model = CharLM(7, CharLMConfig(d_model=8, n_layers=2, mixer=mixer)).double().eval()
    mask = torch.tensor([[*row, True] for row in rows])  # every text has a token
    ids = torch.randint(7, mask.shape, generator=torch.Generator().manual_seed(1))
    logits, state = model(ids, return_state=True, mask=mask)
    last = model(ids, mask=mask, last_only=True)
    follow, _ = model.step(ids[:, 0], state)
    for i in range(len(rows)):
        alone, state_alone = model(ids[i][mask[i]].unsqueeze(0), return_state=True)
        torch.testing.assert_close(logits[i][mask[i]], alone[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(last[i], alone[0, -1], rtol=1e-9, atol=1e-9)
        follow_alone, _ = model.step(ids[i, :1], state_alone)
        torch.testing.assert_close(follow[i], follow_alone[0], rtol=1e-9, atol=1e-9)


def test_only_the_last_without_a_mask():
    model = CharLM(7, CharLMConfig(d_model=8, n_layers=1)).eval()
    ids = torch.randint(7, (2, 5))
    last, state = model(ids, return_state=True, last_only=True)
    whole, _ = model(ids, return_state=True)
    assert last.shape == (2, 7)
    torch.testing.assert_close(last, whole[:, -1])
    assert len(state) == 1


@pytest.mark.parametrize("padding", ["left", "right"])
def test_what_stands_on_padding_is_never_read(padding):
    model = CharLM(7, CharLMConfig(d_model=8, n_layers=1)).eval()
    mask = torch.ones(1, 6, dtype=torch.bool)
    mask[0, 0 if padding == "left" else -1] = False
    ids = torch.randint(7, (1, 6))
    other = torch.where(mask, ids, (ids + 1) % 7)
    assert torch.equal(
        model(ids, mask=mask, last_only=True), model(other, mask=mask, last_only=True)
    )
