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
from ssm_core.errors import ConfigError
from ssm_core.train.loggers import read_metrics
from ssm_text import plugin

MAMBA = 2_644_992
SIZES = {
    "stdlib-mamba": (98, 245_888),
    "shakespeare-mamba": (65, MAMBA),
    "shakespeare-transformer": (65, 2_639_872),
    "shakespeare-mamba2": (65, 2_609_040),
    "shakespeare-s4d": (65, 2_647_992),
    "shakespeare-rnn": (65, 2_645_496),
    "shakespeare-mamba-512": (65, 10_205_184),
    "shakespeare-mamba-512-nodropout": (65, 10_205_184),
    "copying-mamba": (18, 66_624),
    "copying-s4d": (18, 66_550),
    "selective-copying-mamba": (18, 66_624),
    "selective-copying-s4d": (18, 66_550),
    "induction-heads-mamba": (17, 66_560),
    "induction-heads-s4d": (17, 66_486),
}


@pytest.fixture
def host_options(capsys):
    """The options of a recipe, as `ssm-train show` prints them."""

    def options(recipe):
        assert main(["show", recipe]) == 0
        return yaml.safe_load(capsys.readouterr().out)

    return options


def test_entry_point():
    (found,) = (e for e in entry_points(group="ssm.plugins") if e.name == "ssm-text")
    assert found.load() is plugin


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("models", {"char-lm", "mamba-lm"}),
        (
            "datasets",
            {
                *("copying", "huggingface-text", "induction-heads", "python-stdlib"),
                *("selective-copying", "shakespeare", "text-file", "token-file"),
            },
        ),
        ("tasks", {"language-model"}),
        ("commands", {"generate", "perplexity", "tokenize"}),
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
    info = DataInfo((options["data"].get("context", 1),), vocab_size)
    model = spec.build(spec.config(**fields), info)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_compared_recipes_have_equal_parameters_and_the_same_training(host_options):
    """The Transformer within 1 % of the Mamba, the others within 2 %; all else is alike."""
    expected = host_options("shakespeare-mamba")
    for name in ("transformer", "mamba2", "s4d", "rnn"):
        recipe = f"shakespeare-{name}"
        options = host_options(recipe)
        allowed = 0.01 if name == "transformer" else 0.02
        assert abs(SIZES[recipe][1] / MAMBA - 1) < allowed
        for section in ("data", "task", "loader", "optim", "trainer"):
            assert options[section] == expected[section]
        assert options["model"]["dropout"] == 0.2


def test_the_transformer_is_the_one_of_nanogpt(host_options):
    options = host_options("shakespeare-transformer")
    spec = plugin_host().get("models", "char-lm")
    fields = {k: v for k, v in options["model"].items() if k != "name"}
    model = spec.build(spec.config(**fields), DataInfo((256,), 65))
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if "bias" in name]
    assert model.head.weight is model.embedding.weight
    assert model.tower.layers[0].mixer.config.dropout == 0.2
    for name, parameter in model.named_parameters():
        last = name.endswith(("out_proj.weight", "fc2.weight"))
        if parameter.ndim == 2:
            expected = 0.02 / 6**0.5 if last else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name


def test_positions_that_the_examples_exceed():
    spec = plugin_host().get("models", "char-lm")
    with pytest.raises(ConfigError, match=r"model\.positions is 64 for examples of 128 tokens"):
        spec.build(spec.config(positions=64), DataInfo((128,), 98))


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


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        ("copying-mamba", ["--data.tokens", "99"], "data.tokens is 99, expected 1 to data.length"),
        ("induction-heads-s4d", ["--data.tokens", "9"], "unknown"),
        ("selective-copying-s4d", ["--trainer.patience", "-1"], "trainer.patience is -1"),
        ("shakespeare-transformer", ["--model.init", "gtp"], "gtp"),
        ("shakespeare-transformer", ["--model.position", "9"], "model.positions"),
        ("shakespeare-transformers", [], "shakespeare-transformer"),
    ],
)
def test_bad_options_of_other_recipes_are_one_line(recipe, words, message, tmp_path, capsys):
    assert main(["fit", recipe, "--out", str(tmp_path), *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("ssm-train: error: ")


@pytest.mark.parametrize("task", ["copying", "selective-copying", "induction-heads"])
def test_synthetic_recipes_train_a_few_steps(task, tmp_path):
    words = f"""--out {tmp_path} --trainer.max_steps 3 --data.eval_examples 20 --data.length 9
        --model.d_model 8 --trainer.eval_every 2 --trainer.log_every 1 --trainer.accelerator cpu"""
    for mixer in ("mamba", "s4d"):
        assert main(["fit", f"{task}-{mixer}", *words.split()]) == 0
        metrics = read_metrics(tmp_path / f"{task}-{mixer}-001" / "metrics.csv")
        assert [step for step, _ in metrics["eval/accuracy"]] == [2, 3]
        assert all(0 <= value <= 1 for _, value in metrics["eval/accuracy"])


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
