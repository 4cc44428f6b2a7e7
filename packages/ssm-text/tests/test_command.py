from __future__ import annotations

import csv
import io
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


def written(capsys, *words: str) -> str:
    """What the command writes, without the line's end."""
    assert main(["generate", *words]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n")
    return out[:-1]


def test_all_options_reach_the_sampling(trained_run, capsys):
    restored = load_run(trained_run)
    model, vocabulary = restored.module, Vocabulary(restored.info.labels)
    texts = []
    for words, options in (
        (["--temperature", "9"], {}),
        (["--temperature", "9", "--min-p", "0.7"], {"min_p": 0.7}),
        (["--temperature", "9", "--repetition-penalty", "50"], {"repetition_penalty": 50.0}),
    ):
        stream = generate(model, vocabulary, "ab", 40, Sampling(9.0, **options))
        texts.append("ab" + "".join(stream))
        found = written(
            capsys, str(trained_run), "--prompt", "ab", "--max-new-tokens", "40", *words
        )
        assert found == texts[-1]
    assert len(set(texts)) == 3


def test_stop_strings(trained_run, capsys):
    words = [str(trained_run), "--temperature", "0", "--prompt", "abc", "--max-new-tokens", "30"]
    assert written(capsys, *words, "--stop", "h\na") == "abcdefg"
    assert written(capsys, *words, "--stop", "b", "--stop", "\n") == "abcdefgh"
    assert written(capsys, *words, "--stop", "1").startswith("abcdefgh\nabcdefgh\n")


def test_prompts_from_files(trained_run, tmp_path, capsys, monkeypatch):
    greedy = [str(trained_run), "--temperature", "0", "--max-new-tokens", "4"]
    (tmp_path / "prompt").write_bytes(b"fgh\r\nab")
    assert written(capsys, *greedy, "--prompt-file", str(tmp_path / "prompt")) == "fgh\nabcdef"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc")))
    assert written(capsys, *greedy, "--prompt-file", "-") == "abcdefg"


@pytest.mark.parametrize("choices", [["--temperature", "0"], ["--temperature", "2", "--seed", "4"]])
def test_tomorrow_the_text_goes_on(trained_run, tmp_path, capsys, choices):
    words, state = [str(trained_run), *choices], str(tmp_path / "state")
    start = ["--prompt", "fgh", "--max-new-tokens"]
    whole = written(capsys, *words, *start, "60")
    first = written(capsys, *words, *start, "25", "--save-state", state)
    again = [*words[:3], "--state", state]
    assert first + written(capsys, *again, "--max-new-tokens", "35") == whole
    # in three parts, with further text between: that of one prompt
    part = written(capsys, *again, "--prompt", "ab", "--max-new-tokens", "0", "--save-state", state)
    assert part == "ab"
    after = written(capsys, str(trained_run), "--temperature", "0", "--state", state)
    prompt = [str(trained_run), "--temperature", "0", "--prompt", first + "ab"]
    assert first + "ab" + after == written(capsys, *prompt)


@pytest.mark.parametrize("end", ["ctrl-c", "reader gone"])
def test_an_interrupted_text_goes_on_too(trained_run, tmp_path, capfd, monkeypatch, end):
    from ssm_text import command

    words = ["generate", str(trained_run), "--temperature", "2", "--prompt", "abc"]
    assert main(words) == 0
    whole = capfd.readouterr().out
    state, shown = str(tmp_path / "state"), []

    def write(text: str) -> None:
        shown.append(text)
        if len(shown) == 21 and end == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)
        elif len(shown) == 21:
            raise BrokenPipeError

    monkeypatch.setattr(command, "_write", write)
    # the command sends what Python still holds for stdout nowhere: not this process' own
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    code = main([*words, "--max-new-tokens", "100000", "--save-state", state])
    assert code == (130 if end == "ctrl-c" else 0)
    monkeypatch.undo()
    again = ["generate", str(trained_run), "--temperature", "2", "--state", state]
    assert main([*again, "--max-new-tokens", "180"]) == 0
    assert "".join(shown[:21]) + capfd.readouterr().out == whole


def test_a_seed_draws_anew_from_a_state(trained_run, tmp_path, capsys):
    words, state = [str(trained_run), "--temperature", "3"], str(tmp_path / "state")
    written(capsys, *words, "--prompt", "a", "--save-state", state)
    going_on, one, same, two = (
        written(capsys, *words, "--state", state, *seed)
        for seed in ([], ["--seed", "1"], ["--seed", "1"], ["--seed", "2"])
    )
    assert one == same
    assert len({going_on, one, two}) == 3


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
        (["--min-p", "2"], "min_p is 2"),
        (["--repetition-penalty", "0"], "repetition_penalty is 0"),
        (["--stop", ""], "stop has an empty string"),
        (["--prompt", "a", "--prompt-file", "b"], "--prompt and --prompt-file are both given"),
        (["--prompt-file", "{folder}/none"], "none: cannot be read"),
        (["--prompt-file", "{folder}/latin"], "latin: not UTF-8 text"),
        (["--state", "{folder}/none"], "none: no such file"),
        (["--state", "{folder}/latin"], "latin: damaged"),
        (["--save-state", "{folder}"], "is a folder, expected a file"),
        (["--tokenizer", "{folder}/none.json"], "none.json: no such file"),
    ],
)
def test_bad_options_are_one_line(trained_run, tmp_path, capsys, options, message):
    (tmp_path / "latin").write_bytes("\xe9".encode("latin-1"))
    options = [option.format(folder=tmp_path) for option in options]
    assert message in error_of(capsys, str(trained_run), *options)


def test_the_state_of_another_run_is_one_line(trained_run, tmp_path, capsys):
    state = str(tmp_path / "state")
    written(capsys, str(trained_run), "--prompt", "a", "--save-state", state)
    run = copy_run(trained_run, tmp_path / "other")
    module = load_run(run).module
    with torch.no_grad():
        module.head.weight.mul_(0.5)
    save_weights(run / "model.safetensors", module, load_weights(run / "model.safetensors")[1])
    assert "state of another model (other weights)" in error_of(capsys, str(run), "--state", state)


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
