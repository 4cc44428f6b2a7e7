"""The hub is a folder here: what is asked of huggingface_hub is checked, nothing is downloaded."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch

from ssm_core.errors import CheckpointError
from ssm_text import MambaLM, MambaLMConfig
from ssm_text.official import to_official


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for huggingface_hub with one repository, and the list of what was fetched."""
    torch.manual_seed(0)
    model = MambaLM(MambaLMConfig(d_model=8, n_layers=1, vocab_size=11))
    model.save_pretrained(tmp_path / "repository")
    fetched = []

    def check(repository, revision):
        if repository != "state-spaces/mamba-tiny":
            raise RuntimeError("404: no such\nrepository")
        return tmp_path / "repository" if revision in (None, "main") else tmp_path / "none"

    def list_repo_files(repository, *, revision=None):
        return [path.name for path in check(repository, revision).iterdir()] + ["README.md"]

    def hf_hub_download(repository, name, *, revision=None):
        fetched.append(name)
        return str(check(repository, revision) / name)

    def try_to_load_from_cache(repository, name, *, revision=None):
        path = tmp_path / "cache" / repository / name
        return str(path) if path.exists() else None

    module = types.ModuleType("huggingface_hub")
    module.try_to_load_from_cache = try_to_load_from_cache
    module.list_repo_files = list_repo_files
    module.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return types.SimpleNamespace(model=model, fetched=fetched, folder=tmp_path / "repository")


@pytest.mark.parametrize("revision", [None, "main"])
def test_by_id(hub, revision):
    model = MambaLM.from_pretrained("state-spaces/mamba-tiny", revision=revision)
    assert hub.fetched == ["config.json", "model.safetensors"]
    assert torch.equal(model.lm_head.weight, hub.model.lm_head.weight)


def test_shards(hub):
    (hub.folder / "model.safetensors").unlink()
    tensors, _ = to_official(hub.model)
    shards = {name: f"{i % 2}.bin" for i, name in enumerate(tensors)}
    for shard in ("0.bin", "1.bin"):
        part = {name: tensors[name] for name, own in shards.items() if own == shard}
        torch.save(part, hub.folder / shard)
    index = hub.folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    model = MambaLM.from_pretrained("state-spaces/mamba-tiny")
    assert hub.fetched == ["config.json", "pytorch_model.bin.index.json", "0.bin", "1.bin"]
    assert torch.equal(model.lm_head.weight, hub.model.lm_head.weight)


def test_without_a_network_the_cache_is_read(hub, tmp_path):
    kept = tmp_path / "cache" / "state-spaces" / "mamba-offline"
    hub.model.save_pretrained(kept)
    model = MambaLM.from_pretrained("state-spaces/mamba-offline")
    assert torch.equal(model.lm_head.weight, hub.model.lm_head.weight)
    (kept / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be had from the Hugging Face hub"):
        MambaLM.from_pretrained("state-spaces/mamba-offline")


def test_a_mistyped_folder_is_not_looked_for_on_the_network(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(CheckpointError, match="no such folder, and no id"):
        MambaLM.from_pretrained("runs/mamba-tiny")


def test_no_weights(hub):
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has none of model\.safetensors"):
        MambaLM.from_pretrained("state-spaces/mamba-tiny")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("state-spaces/mamba-gone", "cannot be had from the Hugging Face hub: RuntimeError: 404"),
        ("no/such/folder", "no such folder, and no id of the Hugging Face hub"),
        ("mamba", "no such folder, and no id of the Hugging Face hub"),
    ],
)
def test_nothing_there(hub, source, message):
    with pytest.raises(CheckpointError, match=message) as raised:
        MambaLM.from_pretrained(source)
    assert "\n" not in str(raised.value)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'ssm-text\[hub\]'"):
        MambaLM.from_pretrained("state-spaces/mamba-130m")
