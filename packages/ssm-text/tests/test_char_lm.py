from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_text import CharLM, CharLMConfig
from ssm_text.errors import TokenError

CAUSAL = [
    ("mamba", {}),
    ("mamba", {"d_state": 3, "d_conv": 2}),
    ("mamba2", {"d_state": 3}),
    ("s4", {"d_state": 4, "l_max": 16}),
    ("s4d", {"d_state": 4}),
    ("s5", {"d_state": 4}),
    ("rnn", {}),
    ("transformer", {"n_heads": 2}),
]


def random_ids(*shape: int, vocab_size: int = 7) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("mixer", "options"), CAUSAL)
@pytest.mark.parametrize("mlp_hidden", [0, 12])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_steps_equal_forward(make_model, mixer, options, mlp_hidden, length):
    model = make_model(mixer=mixer, mixer_options=options, mlp_hidden=mlp_hidden)
    ids = random_ids(3, length)
    whole = model(ids)
    assert whole.shape == (3, length, 7)
    state = model.initial_state(3)
    for t in range(length):
        logits, state = model.step(ids[:, t], state)
        torch.testing.assert_close(logits, whole[:, t], rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 11), max_size=4))
def test_chunks_equal_forward(cuts):
    torch.manual_seed(0)
    model = CharLM(7, CharLMConfig(d_model=8, n_layers=2)).double().eval()
    ids = random_ids(2, 11)
    whole, last = model(ids, return_state=True)
    bounds = [0, *sorted(cuts), 11]
    state, pieces = model.initial_state(2), []
    for start, stop in pairwise(bounds):
        logits, state = model(ids[:, start:stop], state=state, return_state=True)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)
    for ours, expected in zip(state, last, strict=True):
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("mixer", "options"), CAUSAL)
def test_later_characters_do_not_matter(make_model, mixer, options):
    model = make_model(mixer=mixer, mixer_options=options)
    ids = random_ids(1, 9)
    changed = ids.clone()
    changed[:, 5:] = (ids[:, 5:] + 1) % 7
    torch.testing.assert_close(model(ids)[:, :5], model(changed)[:, :5])
    assert not torch.allclose(model(ids)[:, 5:], model(changed)[:, 5:])


def test_gradients_flow_through_a_state(make_model):
    model = make_model()
    ids = random_ids(2, 8)
    model(ids).square().sum().backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    first, state = model(ids[:, :3], return_state=True)
    second = model(ids[:, 3:], state=state)
    torch.cat([first, second], 1).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-7, atol=1e-7)


def test_empty_sequence(make_model):
    assert make_model()(random_ids(2, 0)).shape == (2, 0, 7)


def test_tied_head_shares_the_embedding():
    tied, untied = CharLM(97), CharLM(97, CharLMConfig(tie_embeddings=False))
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight
    count = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert count[1] - count[0] == 97 * 128


def test_initial_loss_is_that_of_guessing():
    torch.manual_seed(0)
    model = CharLM(97)
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    ids = random_ids(4, 65, vocab_size=97)
    logits = model(ids[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    # a little above ln 97: a tied head starts by repeating the character it just saw
    assert 0 < loss.item() - math.log(97) < 0.3


def test_dropout_only_in_training():
    model = CharLM(7, CharLMConfig(d_model=16, dropout=0.5))
    ids = random_ids(2, 5)
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_training_attention_is_fused(monkeypatch):
    """No mask over all pairs of steps: PyTorch then picks its fused kernel."""
    from torch.nn import functional

    calls, original = [], functional.scaled_dot_product_attention

    def recorded(*tensors, **options):
        calls.append(options)
        return original(*tensors, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", recorded)
    options = {"n_heads": 2, "dropout": 0.25}
    config = CharLMConfig(d_model=8, mixer="attention", mixer_options=options, positions=9)
    model = CharLM(7, config)
    model(random_ids(2, 9))
    model.eval()
    model(random_ids(2, 9))
    wanted = [{"attn_mask": None, "dropout_p": p, "is_causal": True} for p in (0.25, 0.25, 0, 0)]
    assert calls == wanted


def test_dropout_is_where_nanogpt_has_it():
    """The sum of both embeddings, the attention weights, and the end of every branch."""
    options = {"n_heads": 2, "dropout": 0.3}
    config = CharLMConfig(
        d_model=8, n_layers=3, mixer="attention", mixer_options=options, mlp_hidden=12,
        positions=9, dropout=0.3,
    )  # fmt: skip
    model, seen = CharLM(7, config), []
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.Dropout):
            part.register_forward_hook(lambda *_, name=name: seen.append(name))
    model(random_ids(2, 9))
    branches = [f"tower.layers.{i}.drop.0" for i in range(3) for _ in ("mixer", "mlp")]
    assert seen == ["drop", *branches]
    assert all(block.mixer.config.dropout == 0.3 for block in model.tower.layers)


def test_norms_without_biases(make_model):
    model = make_model(mixer="rnn", mlp_hidden=5, norm="layer", bias=False)
    names = {name for name, _ in model.named_parameters() if "bias" in name}
    assert {name.split(".")[-2] for name in names} == {"rnn"}
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    expected = torch.nn.functional.layer_norm(x, (8,), model.tower.norm_f.weight)
    torch.testing.assert_close(model.tower.norm_f(x), expected)


def test_bidirectional_mixer_is_refused():
    with pytest.raises(ConfigError, match=r"model\.mixer is 'bimamba'.* causal one"):
        CharLM(7, CharLMConfig(d_model=8, mixer="bimamba"))


def test_attention_that_is_not_causal_is_refused():
    options = {"n_heads": 2, "causal": False}
    with pytest.raises(ConfigError, match=r"model\.mixer is 'attention'"):
        CharLM(7, CharLMConfig(d_model=8, mixer="attention", mixer_options=options))


def test_unknown_mixer_and_option_are_named():
    with pytest.raises(UnknownNameError, match=r"'mambo'.*'mamba'"):
        CharLM(7, CharLMConfig(mixer="mambo"))
    with pytest.raises(UnknownNameError, match=r"d_stat.*d_state"):
        CharLM(7, CharLMConfig(mixer_options={"d_stat": 4}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 0}, r"model\.d_model is 0, expected 1 or more"),
        ({"n_layers": 0}, r"model\.n_layers is 0, expected 1 or more"),
        ({"mlp_hidden": -1}, r"model\.mlp_hidden is -1, expected 0 or more"),
        ({"positions": -1}, r"model\.positions is -1, expected 0 or more"),
        ({"dropout": 1.0}, r"model\.dropout is 1\.0, expected a number in \[0, 1\)"),
    ],
)
def test_config_refuses(options, message):
    with pytest.raises(ConfigError, match=message):
        CharLMConfig(**options)


def test_initial_values_of_a_gpt_are_for_attention():
    with pytest.raises(ConfigError, match=r"model\.init is 'gpt' with model\.mixer 'mamba'"):
        CharLM(7, CharLMConfig(d_model=8, init="gpt"))


def test_empty_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="vocab_size is 0"):
        CharLM(0)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[0, 7]]), "ids from 0 to 7, expected 0 to 6"),
        (torch.tensor([[-1, 2]]), "ids from -1 to 2, expected 0 to 6"),
        (torch.tensor([1, 2]), r"shape \(2,\).* expected \(b, l\) and torch\.int64"),
        (torch.tensor([[1.0]]), r"type torch\.float32, expected \(b, l\) and torch\.int64"),
    ],
)
def test_wrong_ids_are_refused(make_model, ids, message):
    with pytest.raises(TokenError, match=message):
        make_model()(ids)


def test_step_refuses_a_sequence(make_model):
    model = make_model()
    with pytest.raises(TokenError, match=r"expected \(b,\)"):
        model.step(torch.tensor([[1]]), model.initial_state(1))
