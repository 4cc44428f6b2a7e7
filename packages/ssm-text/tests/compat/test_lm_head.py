"""`MambaLMHeadModel` of mamba_ssm: published values, decoding by steps, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ssm_core.compat.cache import InferenceParams
from ssm_core.errors import CheckpointError, ConfigError
from ssm_text import MambaLM
from ssm_text.compat.config import MambaConfig
from ssm_text.compat.files import load_config_hf, load_state_dict_hf
from ssm_text.compat.lm_head import MambaLMHeadModel

GOLDEN = Path(__file__).parents[1] / "goldens" / "hf_mamba.safetensors"
MAMBA2 = {"layer": "Mamba2", "d_state": 8, "headdim": 8}
ATTENTION = {"causal": True, "num_heads": 2, "d_conv": 4, "rotary_emb_dim": 4}
HYBRID: dict[str, Any] = {
    "ssm_cfg": MAMBA2,
    "attn_layer_idx": [1],
    "attn_cfg": ATTENTION,
    "d_intermediate": 20,
}


def make(**options: Any) -> MambaLMHeadModel:
    config = MambaConfig(**{"d_model": 16, "n_layer": 3, "vocab_size": 11, **options})
    model = MambaLMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_published_values() -> None:
    with safe_open(GOLDEN, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = MambaConfig(d_model=32, n_layer=3, vocab_size=50, pad_vocab_size_multiple=1)
    model = MambaLMHeadModel(config)
    model.load_state_dict(
        {
            name[3:].replace("embeddings", "embedding"): value
            for name, value in tensors.items()
            if name.startswith("sd.")
        }
    )
    with torch.no_grad():
        logits = model(tensors["x"]).logits
    expected = tensors["y"]
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    greedy = tensors["greedy"]
    assert torch.equal(model.generate(tensors["x"][:1, :5], greedy.shape[1]), greedy)


@pytest.mark.parametrize(
    "options",
    [{}, HYBRID, {"rms_norm": False, "fused_add_norm": False, "tie_embeddings": False}],
)
def test_is_the_language_model_of_this_package(options: dict[str, Any], tmp_path: Path) -> None:
    model = make(**options)
    model.save_pretrained(tmp_path / "new" / "model")
    ours = MambaLM.from_pretrained(tmp_path / "new" / "model")
    ids = torch.randint(11, (2, 9))
    torch.testing.assert_close(model(ids).logits, ours(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"ssm_cfg": MAMBA2}, HYBRID])
def test_prompt_then_steps_give_the_whole_text(options: dict[str, Any]) -> None:
    model, ids = make(**options).double(), torch.randint(11, (2, 8))
    with torch.no_grad():
        expected = model(ids).logits
        for allocated in (False, True):
            params = InferenceParams(8, 2)
            if allocated:
                cache = model.allocate_inference_cache(2, 8, dtype=torch.float64)
                params.key_value_memory_dict = cache
            pieces = [model(ids[:, :3], inference_params=params).logits]
            params.seqlen_offset = 3
            for t in range(3, 8):
                pieces.append(model(ids[:, t : t + 1], inference_params=params).logits)
                params.seqlen_offset += 1
            torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=1e-9, atol=1e-9)
            assert sorted(params.key_value_memory_dict) == [0, 1, 2]
        last = model(ids, num_last_tokens=2, position_ids=torch.arange(8)).logits
        torch.testing.assert_close(last, expected[:, -2:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tied", [True, False])
def test_there_and_back(tied: bool, tmp_path: Path) -> None:
    model = make(tie_embeddings=tied, ssm_cfg={"d_state": 4})
    model.save_pretrained(tmp_path / "model")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["config.json", "pytorch_model.bin"]
    assert load_config_hf(tmp_path / "model")["ssm_cfg"] == {"d_state": 4}
    again = MambaLMHeadModel.from_pretrained(str(tmp_path / "model"))
    assert again.config == model.config
    assert (again.lm_head.weight is again.backbone.embedding.weight) == tied
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_reads_safetensors_with_a_tied_head_left_out(tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    tensors = dict(model.state_dict())
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").unlink()
    again = MambaLMHeadModel.from_pretrained(tmp_path)
    ids = torch.randint(11, (1, 4))
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert "lm_head.weight" not in load_state_dict_hf(tmp_path)


def test_dtype_of_what_is_read(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    half = MambaLMHeadModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for name, parameter in half.named_parameters():
        kept = name.endswith(("A_log", ".D"))
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name
    assert half(torch.zeros(1, 3, dtype=torch.long)).logits.dtype == torch.bfloat16
    read = load_state_dict_hf(tmp_path, dtype=torch.float64)
    assert {value.dtype for value in read.values()} == {torch.float64}


def test_old_and_unknown_keys_of_a_configuration(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    config = load_config_hf(tmp_path)
    for name in ("d_intermediate", "attn_layer_idx", "attn_cfg", "tie_embeddings"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps({**config, "of_tomorrow": 1}))
    assert MambaLMHeadModel.from_pretrained(tmp_path).config.n_layer == 3


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        MambaLMHeadModel.from_pretrained(tmp_path / "none")
    make().save_pretrained(tmp_path)
    config = load_config_hf(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_layer": 4}))
    with pytest.raises(CheckpointError, match=r"missing backbone\.layers\.3") as caught:
        MambaLMHeadModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text('{"hidden_size": 16}')
    with pytest.raises(ConfigError, match=r"ssm_text\.MambaLM"):
        MambaLMHeadModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="expected JSON"):
        load_config_hf(tmp_path)


def test_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().save_pretrained(tmp_path)
    asked = []

    def fetch(repository: str) -> Path:
        asked.append(repository)
        return tmp_path

    monkeypatch.setattr("ssm_text.compat.files.fetch", fetch)
    model = MambaLMHeadModel.from_pretrained("state-spaces/mamba-tiny")
    assert model.config.n_layer == 3
    assert set(asked) == {"state-spaces/mamba-tiny"}


def test_vocabulary_is_padded() -> None:
    model = make(pad_vocab_size_multiple=8)
    assert model.lm_head.weight.shape == (16, 16)
    assert model.config.vocab_size == 11


def test_trains() -> None:
    model, ids = make(**HYBRID), torch.randint(11, (4, 6))

    def loss() -> Tensor:
        logits = model(ids[:, :-1]).logits.flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten())

    before = loss()
    for _ in range(5):
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(loss(), parameters)
        assert all(gradient.any() for gradient in gradients)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.05 * gradient
    assert loss() < 0.8 * before
