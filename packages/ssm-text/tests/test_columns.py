from __future__ import annotations

import pytest
import torch

from ssm_text import MambaLM, MambaLMConfig
from ssm_text.columns import LEAST, store_by_columns


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MambaLM(MambaLMConfig(d_model=192, n_layers=1, vocab_size=400)).eval()


@torch.no_grad()
def test_nothing_changes_but_the_order(model, tmp_path):
    ids = torch.randint(400, (2, 5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected, state = model(ids, return_state=True)
    following, _ = model.step(ids[:, 0], state)
    assert store_by_columns(model) is model

    mixer = model.backbone.layers[0].mixer
    moved = [mixer.in_proj.weight, mixer.out_proj.weight, model.lm_head.weight]
    for weight in moved:
        assert weight.numel() >= LEAST
        assert weight.stride() == (1, weight.shape[0])
    assert mixer.x_proj.weight.is_contiguous()
    assert model.lm_head.weight is model.backbone.embedding.weight
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    logits, state = model(ids, return_state=True)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(model.step(ids[:, 0], state)[0], following)
    model.save_pretrained(tmp_path)
    again = MambaLM.from_pretrained(tmp_path)
    assert all(torch.equal(v, before[name]) for name, v in again.state_dict().items())
    assert again.lm_head.weight.stride() == (1, 400)


def test_trains_as_before(model):
    ids = torch.randint(400, (2, 5))

    def gradient():
        model.zero_grad()
        model(ids).logsumexp(-1).sum().backward()
        return model.lm_head.weight.grad.clone()

    expected = gradient()
    store_by_columns(model)
    torch.testing.assert_close(gradient(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_stay(model, dtype):
    store_by_columns(model.to(dtype))
    assert model.lm_head.weight.is_contiguous()


def test_small_matrices_stay():
    model = store_by_columns(MambaLM(MambaLMConfig(d_model=8, n_layers=1, vocab_size=11)))
    assert all(parameter.is_contiguous() for parameter in model.parameters())
