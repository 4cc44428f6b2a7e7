from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssm_core.errors import CheckpointError, ConfigError
from ssm_text import MambaLM, MambaLMConfig
from ssm_text.official import to_official
from ssm_text.pretrained import read_weights


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MambaLM(MambaLMConfig(d_model=8, n_layers=2, vocab_size=11)).eval()


def assert_same(one, other):
    assert one.config.tie_embeddings == other.config.tie_embeddings
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def write(model, folder, name, save, format="official"):
    tensors, config = to_official(model, format)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save(tensors, folder / name)


@pytest.mark.parametrize("format", ["official", "huggingface"])
@pytest.mark.parametrize("tied", [True, False])
def test_there_and_back(format, tied, tmp_path):
    torch.manual_seed(0)
    config = MambaLMConfig(
        d_model=8, n_layers=2, vocab_size=11, mixer="mamba2", tie_embeddings=tied
    )
    model = MambaLM(config)
    model.save_pretrained(tmp_path / "new" / "model", format=format)
    assert sorted(p.name for p in (tmp_path / "new" / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    again = MambaLM.from_pretrained(str(tmp_path / "new" / "model"))
    assert_same(model, again)
    assert not again.training
    assert (again.lm_head.weight is again.backbone.embedding.weight) == tied
    ids = torch.randint(11, (2, 7))
    with torch.no_grad():
        torch.testing.assert_close(again(ids), model.eval()(ids), rtol=0, atol=1e-6)


def test_transformers_reads_what_we_write(model, tmp_path):
    from transformers import MambaForCausalLM

    model.save_pretrained(tmp_path, format="huggingface")
    theirs = MambaForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(11, (2, 7))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch(model, zipped, tmp_path):
    def save(tensors, path):
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)

    write(model, tmp_path, "pytorch_model.bin", save)
    assert_same(model, MambaLM.from_pretrained(tmp_path))


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_shards(model, kind, tmp_path):
    stem, suffix = kind.rsplit(".", 1)
    save = save_file if suffix == "safetensors" else torch.save

    def save_shards(tensors, path):
        names = sorted(tensors)
        places = {n: f"{stem}-0000{1 + i % 2}-of-00002.{suffix}" for i, n in enumerate(names)}
        for shard in set(places.values()):
            save({n: tensors[n] for n in names if places[n] == shard}, path.parent / shard)
        path.write_text(json.dumps({"metadata": {}, "weight_map": places}))

    write(model, tmp_path, f"{kind}.index.json", save_shards, "huggingface")
    assert_same(model, MambaLM.from_pretrained(tmp_path))
    (tmp_path / f"{stem}-00002-of-00002.{suffix}").unlink()
    with pytest.raises(CheckpointError, match=r"has no .*00002-of-00002"):
        MambaLM.from_pretrained(tmp_path)
    (tmp_path / f"{kind}.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has no weight_map"):
        MambaLM.from_pretrained(tmp_path)


def test_type_and_place(model, tmp_path):
    model.save_pretrained(tmp_path)
    half = MambaLM.from_pretrained(tmp_path, dtype=torch.bfloat16, device="cpu")
    assert half.lm_head.weight.dtype is torch.bfloat16
    assert half.backbone.layers[0].mixer.A_log.dtype is torch.float32
    assert MambaLM.from_pretrained(tmp_path, device="meta").lm_head.weight.device.type == "meta"


def test_never_runs_code(model, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    write(model, tmp_path, "pytorch_model.bin", lambda t, p: torch.save(t | {"x": Bomb()}, p))
    with pytest.raises(CheckpointError, match="reading it would run code"):
        MambaLM.from_pretrained(tmp_path)
    assert not (tmp_path / "exploded").exists()
    # the same file does run code where it may
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK broken", "damaged"), (b"", "damaged"), (pickle.dumps([1]), "damaged|more than tensors")],
)
def test_damaged_files(model, content, message, tmp_path):
    write(model, tmp_path, "pytorch_model.bin", lambda t, p: p.write_bytes(content))
    with pytest.raises(CheckpointError, match=message) as raised:
        MambaLM.from_pretrained(tmp_path)
    assert "\n" not in str(raised.value)


def test_more_than_tensors(model, tmp_path):
    write(model, tmp_path, "pytorch_model.bin", lambda t, p: torch.save({"model": t}, p))
    with pytest.raises(CheckpointError, match="more than tensors"):
        MambaLM.from_pretrained(tmp_path)


def test_missing_files(model, tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        MambaLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"config\.json: damaged"):
        MambaLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds a list"):
        MambaLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_official(model)[1]))
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors or .*pytorch_model\.bin"):
        MambaLM.from_pretrained(tmp_path)


def test_a_failed_write_leaves_the_old_model(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    before = read_weights(tmp_path)
    other = MambaLM(MambaLMConfig(d_model=8, n_layers=1, vocab_size=11, norm_eps=0.1))
    with pytest.raises(ConfigError):
        other.save_pretrained(tmp_path)

    def broken(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", broken)
    with pytest.raises(OSError, match="no space"):
        model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert all(
        torch.equal(before[k], v) for k, v in load_file(tmp_path / "model.safetensors").items()
    )
    assert_same(model, MambaLM.from_pretrained(tmp_path))
