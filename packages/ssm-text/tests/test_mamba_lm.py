from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ssm_core import DataInfo
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_text import MambaLM, MambaLMConfig
from ssm_text.errors import TokenError
from ssm_text.mamba_lm import build_mamba_lm

MIXERS = ["mamba", "mamba2", "mamba3"]


def make(seed=0, **options):
    """A small model in float64, every parameter moved off its initial value."""
    torch.manual_seed(seed)
    options = {"d_model": 8, "n_layers": 2, "vocab_size": 11} | options
    options.setdefault("mixer_options", {"d_state": 4})
    model = MambaLM(MambaLMConfig(**options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.backbone.embedding.weight.mul_(10)
    return model


def test_names_of_the_parameters():
    model = MambaLM(MambaLMConfig(d_model=8, n_layers=1, vocab_size=11, mlp_hidden=5))
    mixer = ["A_log", "D", "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight"]
    mixer += ["dt_proj.weight", "dt_proj.bias", "out_proj.weight"]
    layer = ["norm.weight", "norm2.weight", "mlp.fc1.weight", "mlp.fc2.weight"]
    layer += [f"mixer.{name}" for name in mixer]
    assert set(model.state_dict()) == {
        *(f"backbone.layers.0.{name}" for name in layer),
        *("backbone.embedding.weight", "backbone.norm_f.weight", "lm_head.weight"),
    }
    assert model.backbone.layers[0].mlp.fc1.weight.shape == (256, 8)  # two halves of 5, up to 128
    assert model.lm_head.weight is model.backbone.embedding.weight
    untied = MambaLM(MambaLMConfig(d_model=8, n_layers=1, vocab_size=11, tie_embeddings=False))
    assert untied.lm_head.weight is not untied.backbone.embedding.weight


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("norm", ["rms", "layer"])
@torch.no_grad()
def test_is_a_pre_norm_stack(mixer, norm):
    """Against the formulas of the paper; the mixers themselves have tests of their own."""
    model = make(mixer=mixer, norm=norm, norm_eps=0.1, mlp_hidden=3, tie_embeddings=False)

    def normed(x, part):
        if norm == "layer":
            x = x - x.mean(-1, keepdim=True)
            return x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt() * part.weight + part.bias
        return x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt() * part.weight

    ids = torch.randint(11, (2, 7))
    r = model.backbone.embedding.weight[ids]
    for block in model.backbone.layers:
        r = r + block.mixer(normed(r, block.norm))
        both = normed(r, block.norm2) @ block.mlp.fc1.weight.T
        u, gate = both[..., :128], both[..., 128:]
        r = r + (u * F.silu(gate)) @ block.mlp.fc2.weight.T
    expected = normed(r, model.backbone.norm_f) @ model.lm_head.weight.T
    torch.testing.assert_close(model(ids), expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=12, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 9), max_size=3),
    mixer=st.sampled_from(MIXERS),
    mlp=st.sampled_from([0, 3]),
    batch=st.integers(1, 3),
    attention=st.sampled_from([(), (1,), (0, 1)]),
)
@torch.no_grad()
def test_pieces_and_steps_are_the_whole(cuts, mixer, mlp, batch, attention):
    options = {"n_heads": 2, "d_conv": 3, "rotary_dim": 2}
    model = make(mixer=mixer, mlp_hidden=mlp, attention_layers=attention, attention_options=options)
    ids = torch.randint(11, (batch, 9))
    whole, end = model(ids, return_state=True)
    state, pieces = model.initial_state(batch), []
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 9], strict=True):
        logits, state = model(ids[:, start:stop], state=state, return_state=True)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)
    stepped = model.initial_state(batch)
    for t in range(9):
        logits, stepped = model.step(ids[:, t], stepped)
        torch.testing.assert_close(logits, whole[:, t], rtol=1e-9, atol=1e-9)
    for other in (state, stepped):
        for own, expected in zip(other, end, strict=True):
            for part, whole_part in zip(own, expected, strict=True):
                torch.testing.assert_close(part, whole_part, rtol=1e-9, atol=1e-9)


def test_initial_values():
    torch.manual_seed(0)
    config = MambaLMConfig(
        d_model=64,
        n_layers=16,
        vocab_size=997,
        mlp_hidden=128,
        mixer_options={"bias": True, "dt_min": 0.01, "dt_max": 0.1},
    )
    model = MambaLM(config)
    assert float(model.backbone.embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    for block in model.backbone.layers:
        mixer = block.mixer
        assert not mixer.in_proj.bias.any()
        assert not mixer.out_proj.bias.any()
        step = F.softplus(mixer.dt_proj.bias)
        assert 0.0099 < step.min() < step.max() < 0.1001
        # uniform within 1/sqrt(inputs), divided by sqrt(n_layers) = 4 at the end of a branch
        for weight, factor in ((mixer.out_proj.weight, 4), (block.mlp.fc2.weight, 4)):
            bound = 1 / math.sqrt(weight.shape[1]) / factor
            assert 0.95 * bound < weight.abs().max() <= bound
        assert mixer.in_proj.weight.abs().max() > 0.95 / math.sqrt(64)
        assert mixer.A_log._no_weight_decay
        assert mixer.D._no_weight_decay


def test_is_trained_and_writes_by_name(tmp_path, capsys):
    from ssm_core.cli import main

    (tmp_path / "abc.txt").write_text("abcdefgh\n" * 400)
    words = f"""fit stdlib-mamba --out {tmp_path / "runs"} --model mamba-lm --model.d_model 16
        --model.n_layers 2 --model.mixer mamba2 --model.attention_layers [1]
        --model.attention_options.n_heads 2 --data text-file --data.path {tmp_path / "abc.txt"}
        --data.context 18 --loader.batch_size 8 --optim.lr 0.02 --optim.warmup_steps 5
        --trainer.max_steps 40 --trainer.eval_every null --trainer.accelerator cpu"""
    assert main(words.split()) == 0
    capsys.readouterr()
    run = str(tmp_path / "runs" / "stdlib-mamba-001")
    words = f"generate {run} --prompt abc --max-new-tokens 20 --temperature 0"
    assert main(words.split()) == 0
    assert capsys.readouterr().out == "abcdefgh\nabcdefgh\nabcde\n"


@pytest.mark.parametrize("wanted", [True, False])
@torch.no_grad()
def test_residual_stream_in_half_precision(wanted):
    config = MambaLMConfig(d_model=16, n_layers=2, vocab_size=11, residual_in_fp32=wanted)
    model = MambaLM(config).bfloat16()
    seen = []
    model.backbone.norm_f.register_forward_pre_hook(lambda _, x: seen.append(x[0].dtype))
    logits = model(torch.zeros(1, 3, dtype=torch.int64))
    assert seen == [torch.float32 if wanted else torch.bfloat16]
    assert logits.dtype is torch.bfloat16


def test_vocabulary_is_padded_for_the_logits_alone():
    model = make(vocab_size=11, pad_vocab_size_multiple=8)
    assert model.vocab_size == 11
    assert model(torch.tensor([[10]])).shape == (1, 1, 16)
    with pytest.raises(TokenError, match="expected 0 to 10"):
        model(torch.tensor([[11]]))


def test_model_for_data():
    info = DataInfo((32,), 65)
    assert build_mamba_lm(MambaLMConfig(d_model=8, n_layers=1), info).vocab_size == 65
    config = MambaLMConfig(d_model=8, n_layers=1, vocab_size=100)
    assert build_mamba_lm(config, info).vocab_size == 100
    with pytest.raises(ConfigError, match="vocab_size is 64, but the data have 65"):
        build_mamba_lm(MambaLMConfig(d_model=8, n_layers=1, vocab_size=64), info)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": None}, "vocab_size is None"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"mlp_hidden": -1}, "mlp_hidden is -1"),
        ({"mixer": "s4"}, "mixer is 's4'"),
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"norm_eps": -1.0}, "norm_eps is -1.0"),
        ({"attention_layers": (2,)}, "attention_layers has 2, expected 0 to 1"),
        ({"mixer": "mamba2", "mixer_options": {"headdim": 5}}, "headdim is 5"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as raised:
        make(**options)
    assert "\n" not in str(raised.value)


def test_unknown_option_of_the_mixer():
    with pytest.raises(UnknownNameError, match="d_state"):
        make(mixer_options={"d_stat": 3})
