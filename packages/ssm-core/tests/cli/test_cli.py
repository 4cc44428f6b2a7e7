"""What a user types, what comes back, and the exit codes."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from ssm_core.train.checkpoint import load_weights
from ssm_core.train.loggers import read_metrics


def test_list_shows_everything_with_its_distribution(train):
    code, out, _ = train("list")
    assert code == 0
    assert "points-net" in out
    assert "[toy 1.0]" in out
    code, out, _ = train("list", "counters")
    assert out.split() == ["counter", "counts", "steps", "[toy", "1.0]"]


def test_show_prints_yaml_that_fit_accepts(train, tmp_path):
    code, out, _ = train("show", "points-net", "--model.width", "9")
    assert code == 0
    assert "width: 9" in out
    (tmp_path / "mine.yaml").write_text(out)
    code, again, _ = train("show", "points-net", "--config", "mine.yaml")
    assert again == out


def test_fit_prints_table_and_paths(train, tmp_path):
    code, out, err = train("fit", "points-net")
    assert code == 0
    assert "accuracy" in out
    assert "runs/points-net-001/report/report.html" in out
    assert "epoch 3" in err
    assert (tmp_path / "runs/points-net-001/report/report.md").is_file()


def test_fit_help_lists_the_options_of_the_recipe(train):
    code, out, _ = train("fit", "points-net", "--help")
    assert code == 0
    assert "--model.width" in out
    assert "hidden units" in out
    assert "--resume" in out


def test_eval_agrees_with_the_training(train, tmp_path):
    train("fit", "points-net")
    code, out, _ = train("eval", "runs/points-net-001", "--json")
    curves = read_metrics(tmp_path / "runs/points-net-001/metrics.csv")
    assert code == 0
    assert json.loads(out)["eval/accuracy"] == curves["eval/accuracy"][-1][1]
    assert json.loads(out)["eval/loss"] == pytest.approx(curves["eval/loss"][-1][1], rel=1e-6)


def test_report_of_two_runs(train, tmp_path):
    train("fit", "points-net")
    train("fit", "points-net", "--trainer.seed", "4")
    code, out, _ = train("report", "runs/points-net-001", "runs/points-net-002", "--out", "both")
    assert code == 0
    assert "points-net-002" in (tmp_path / "both/report.md").read_text()
    assert "both/toy.txt" in out


def test_resume_auto_starts_a_new_run_when_the_last_is_finished(train, tmp_path):
    train("fit", "points-net")
    assert train("fit", "points-net", "--resume", "auto")[0] == 0
    assert (tmp_path / "runs/points-net-002/status.json").is_file()


def test_resume_of_a_run_that_another_process_trains_is_refused(train, tmp_path):
    train("fit", "points-net", "--trainer.max_steps", "8")
    status = {"state": "running", "process": os.getppid(), "host": platform.node()}
    (tmp_path / "runs/points-net-001/status.json").write_text(json.dumps(status))
    for resume in ("auto", "runs/points-net-001"):
        code, _, err = train("fit", "points-net", "--resume", resume)
        assert code == 2
        assert f"process {os.getppid()} is training there" in err
    status["process"] = 2**22 + 1  # above the largest process number of Linux: nobody
    (tmp_path / "runs/points-net-001/status.json").write_text(json.dumps(status))
    assert train("fit", "points-net", "--resume", "auto")[0] == 0


def test_resume_with_other_options_is_refused(train):
    train("fit", "points-net", "--trainer.max_steps", "8")
    words = ("--resume", "runs/points-net-001", "--optim.lr", "0.5")
    code, _, err = train("fit", "points-net", *words)
    assert code == 2
    assert "--optim.lr 0.5 differs from 0.01" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fitt"], "unknown command 'fitt': did you mean 'fit'?"),
        (["fit"], "name a recipe first, one of: points-net"),
        (["fit", "points-nett"], "unknown recipe 'points-nett': did you mean 'points-net'?"),
        (
            ["fit", "points-net", "--data", "point"],
            "unknown dataset 'point': did you mean 'points'",
        ),
        (["fit", "points-net", "--model", "nett"], "unknown model 'nett': did you mean 'net'?"),
        (["fit", "points-net", "--count", "countr"], "unknown counter 'countr'"),
        (["fit", "points-net", "--model.wdth", "3"], "did you mean '--model.width'?"),
        (["fit", "points-net", "--resume", "gone"], "gone: not a run folder"),
        (["eval", "gone"], "gone: not a run folder"),
        (["report", "gone"], "gone: not a run folder"),
        (["list", "modles"], "unknown kind 'modles'"),
        (["say"], "required: word"),
        (["say", "a", "--count", "many"], '"count": expected int. Got value: many (see ssm-train'),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(train, words, message):
    code, _, err = train(*words)
    assert code == 2
    assert message in err
    assert err.startswith("ssm-train: error: ")
    assert len(err.strip().splitlines()) == 1


def test_a_failing_fit_leaves_no_empty_run_folder(train, tmp_path):
    assert train("fit", "points-net", "--data.size", "0")[0] == 2
    assert not list(tmp_path.glob("runs/*"))


def test_internal_error_is_one_line_and_exit_code_1(train, monkeypatch):
    from ssm_core.train import loop

    def fails(run, batch, recorder):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(loop, "_step", fails)
    code, _, err = train("fit", "points-net")
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("ssm-train: internal error: ZeroDivisionError: by zero")
    assert "Traceback" not in err
    code, _, err = train("fit", "points-net", "--debug")
    assert "Traceback" in err


def wait_for_step(folder, step, seconds=300):
    end = time.monotonic() + seconds
    path = folder / "metrics.csv"
    while time.monotonic() < end:
        if path.is_file() and any(s >= step for s, _ in read_metrics(path).get("train/loss", [])):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


SLOW = ("fit", "points-net", "--model.delay_s", "0.05")


def test_a_reader_that_goes_away_is_no_error(launcher):
    command = [sys.executable, str(launcher), "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_resumes(spawn, fork, tmp_path):
    process = spawn(SLOW)
    folder = tmp_path / "runs/points-net-001"
    wait_for_step(folder, 4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "--resume runs/points-net-001" in err
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    resumed = fork(("fit", "points-net", "--resume", str(folder)))
    assert resumed.wait() == 0, resumed.output
    assert json.loads((folder / "status.json").read_text())["step"] == 18


@pytest.mark.slow
def test_sigkill_resumes_bit_for_bit(spawn, fork, tmp_path):
    whole = fork(("fit", "points-net", "--out", "whole"))
    assert whole.wait() == 0, whole.output
    killed = fork((*SLOW, "--trainer.checkpoint_every", "3"))
    folder = tmp_path / "runs/points-net-001"
    wait_for_step(folder, 8)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    process = spawn((*SLOW, "--trainer.checkpoint_every", "3", "--resume", "auto"))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    a = load_weights(folder / "model.safetensors")[0]
    b = load_weights(tmp_path / "whole/points-net-001/model.safetensors")[0]
    assert all(torch.equal(a[k], b[k]) for k in b)


def two_processes(fork, words):
    """Start `ssm-train` twice, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "tests"}
    return [fork(words, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("--trainer.ema_decay", "0.8", "--loader.accumulate", "2", "--loader.repeats", "2"),
    ],
    ids=["plain", "average-parts-repeats"],
)
def test_two_processes_are_one_with_the_joined_batch(spawn, fork, tmp_path, extra):
    words = ("fit", "points-net", "--model.dropout", "0.0", *extra)
    processes = [fork((*words, "--out", "alone"))]
    if extra:
        processes += two_processes(fork, (*words, "--out", "both"))
    else:  # torchrun itself
        prefix = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        both = spawn((*words, "--out", "both"), prefix)
        _, err = both.communicate(timeout=300)
        assert both.returncode == 0, err
    for process in processes:
        assert process.wait() == 0, process.output
    one = read_metrics(tmp_path / "alone/points-net-001/metrics.csv")
    two = read_metrics(tmp_path / "both/points-net-001/metrics.csv")
    averaged = {"eval_ema/loss"} if extra else set()
    assert {name for name in one if name.startswith("eval_ema/loss")} == averaged
    for name in {"train/loss", "eval/loss", "eval/accuracy"} | averaged:
        assert [s for s, _ in one[name]] == [s for s, _ in two[name]]
        assert [v for _, v in one[name]] == pytest.approx([v for _, v in two[name]], abs=1e-5)
    assert not (tmp_path / "both/points-net-002").exists()
