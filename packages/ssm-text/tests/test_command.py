from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssm_core.cli import main
from ssm_core.train.checkpoint import load_weights, save_weights
from ssm_core.train.restore import load_run
from ssm_text import Sampling, Vocabulary, generate

CONSOLE = Path(sys.executable).with_name("ssm-train")


def losses(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]


def test_training_learns_the_text(trained_run):
    train = losses(trained_run, "train/loss")
    assert train[0] > 1.8  # ln 9 = 2.2: nine characters, nothing known
    assert train[-1] < 0.6
    assert losses(trained_run, "eval/accuracy")[-1] > 0.9
    bits, nats = (losses(trained_run, f"eval/{n}")[-1] for n in ("bits_per_token", "loss"))
    assert bits == pytest.approx(nats / 0.6931472, rel=1e-4)


def test_output_is_that_of_generate(trained_run, capsys):
    words = f"generate {trained_run} --max-new-tokens 40 --temperature 1.5 --top-k 4 --top-p 0.9"
    assert main([*words.split(), "--seed", "3", "--prompt", "gh\n"]) == 0
    restored = load_run(trained_run)
    stream = generate(
        restored.module, Vocabulary(restored.info.labels), "gh\n", 40, Sampling(1.5, 4, 0.9, 3)
    )
    assert capsys.readouterr().out == "gh\n" + "".join(stream) + "\n"


def test_empty_prompt_shows_only_what_is_new(trained_run, capsys):
    words = ["generate", str(trained_run), "--temperature", "0", "--max-new-tokens", "8"]
    assert main(words) == 0
    assert capsys.readouterr().out == "abcdefgh\n"


def error_of(capsys, *words: str) -> str:
    """The one line on stderr of a command that must exit with 2."""
    assert main(["generate", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "xaz"], "unknown characters 'x', 'z'"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--top-k", "-2"], "top_k is -2"),
        (["--top-p", "0"], "top_p is 0"),
        (["--max-new-tokens", "-3"], "max_new_tokens is -3"),
        (["--max-new-tokens", "many"], "max_new_tokens"),
        (["--device", "abacus"], "--device abacus cannot be used here"),
        (["--promt", "a"], "--promt"),
    ],
)
def test_bad_options_are_one_line(trained_run, capsys, options, message):
    assert message in error_of(capsys, str(trained_run), *options)


def test_missing_run_is_one_line(tmp_path, capsys):
    assert str(tmp_path / "none") in error_of(capsys, str(tmp_path / "none"))


def copy_run(run: Path, to: Path) -> Path:
    """A copy whose files may be changed."""
    for name in ("config.yaml", "info.json", "model.safetensors"):
        to.mkdir(exist_ok=True)
        (to / name).write_bytes((run / name).read_bytes())
    return to


def test_diverged_model_is_one_line(trained_run, tmp_path, capsys):
    run = copy_run(trained_run, tmp_path / "nan")
    module = load_run(run).module
    weights, metadata = load_weights(run / "model.safetensors")
    with torch.no_grad():
        module.tower.norm_f.weight.fill_(float("nan"))
    assert set(weights) == set(module.state_dict())
    save_weights(run / "model.safetensors", module, metadata)
    assert main(["generate", str(run), "--prompt", "a"]) == 2
    assert "NaN or infinite logits" in capsys.readouterr().err


def test_run_of_another_model_is_one_line(trained_run, tmp_path, capsys, monkeypatch):
    import ssm_core.train.restore as restore

    class Other:
        module = torch.nn.Identity()

    monkeypatch.setattr(restore, "load_run", lambda folder, device: Other)
    assert "holds a Identity, expected a character language model" in error_of(
        capsys, str(tmp_path)
    )


def endless(run: Path) -> subprocess.Popen[bytes]:
    """The installed command with far too much to do; its first characters are the ones learnt."""
    words = ["--prompt", "abc", "--max-new-tokens", "100000000", "--temperature", "0"]
    process = subprocess.Popen(
        [CONSOLE, "generate", run, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    # streams: the end is hours away
    assert process.stdout.read(12) == b"abcdefgh\nabc"
    return process


def test_console_with_a_reader_that_goes_away(trained_run):
    with endless(trained_run) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_console_with_ctrl_c(trained_run):
    with endless(trained_run) as process:
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert out.endswith(b"\n")
        assert err == b""
