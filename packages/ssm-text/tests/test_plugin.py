from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

import ssm_text
from ssm_core import DataInfo, plugin_host
from ssm_core.cli import main
from ssm_text import plugin

SIZES = {"stdlib-mamba": (98, 245_888), "shakespeare-mamba": (65, 2_644_992)}


def test_entry_point():
    (found,) = (e for e in entry_points(group="ssm.plugins") if e.name == "ssm-text")
    assert found.load() is plugin


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("models", {"char-lm", "mamba-lm"}),
        (
            "datasets",
            {"huggingface-text", "python-stdlib", "shakespeare", "text-file", "token-file"},
        ),
        ("tasks", {"language-model"}),
        ("commands", {"generate", "tokenize"}),
        ("recipes", set(SIZES)),
    ],
)
def test_offers(kind, names):
    table = plugin_host().table(kind)
    ours = {name for name, r in table.items() if r.provider.startswith("ssm-text")}
    assert ours == names
    assert all(table[name].spec.summary for name in names)


@pytest.mark.parametrize("recipe", SIZES)
def test_recipe_resolves_and_its_model_builds(recipe, capsys):
    assert main(["show", recipe]) == 0
    options = yaml.safe_load(capsys.readouterr().out)
    assert options["model"]["name"] == "char-lm"
    spec = plugin_host().get("models", "char-lm")
    fields = {k: v for k, v in options["model"].items() if k != "name"}
    vocab_size, parameters = SIZES[recipe]
    model = spec.build(spec.config(**fields), DataInfo((128,), vocab_size))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.mixer", "bimamba"], "model.mixer is 'bimamba'"),
        (["--model.mixer", "mambo"], "'mamba'"),
        (["--data.contxt", "3"], "data.context"),
        (["--data.stride", "1000"], "data.stride is 1000"),
        (["--data", "text-file"], "--data.path"),
    ],
)
def test_bad_options_are_one_line(words, message, tmp_path, capsys):
    assert main(["fit", "stdlib-mamba", "--out", str(tmp_path), *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("ssm-train: error: ")


def test_shakespeare_recipe_trains_a_step(data_root, tmp_path):
    words = f"""fit shakespeare-mamba --out {tmp_path} --data.root {data_root} --data.context 16
        --loader.batch_size 2 --loader.eval_batch_size 4 --trainer.max_steps 2
        --trainer.eval_batches 2 --model.n_layers 1 --model.d_model 16 --trainer.accelerator cpu"""
    assert main(words.split()) == 0
    assert (tmp_path / "shakespeare-mamba-001" / "model.safetensors").is_file()


def test_works_without_image_libraries():
    """Blocks what only ssm-vision needs, then uses everything here."""
    program = """
import sys
for name in ("torchvision", "matplotlib", "sklearn", "PIL", "timm"):
    sys.modules[name] = None
from ssm_core.cli import main
import torch, ssm_text
assert main(["list", "datasets"]) == 0
model = ssm_text.CharLM(5, ssm_text.CharLMConfig(d_model=8))
print("".join(ssm_text.generate(model, ssm_text.Vocabulary("abcde"), "a", 3)))
"""
    environment = os.environ | {"SSM_DISABLE_PLUGINS": "ssm-vision"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "python-stdlib" in done.stdout
    assert len(done.stdout.splitlines()[-1]) == 3


def test_versions_agree():
    import importlib.metadata

    assert ssm_text.__version__ == importlib.metadata.version("ssm-text")


def test_only_plugin_knows_about_hooks():
    source = Path(ssm_text.__file__).parent
    knowing = [p.name for p in source.rglob("*.py") if "hookimpl" in p.read_text()]
    assert knowing == ["plugin.py"]
