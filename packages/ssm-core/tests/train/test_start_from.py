"""Runs that begin with trained weights."""

import argparse

import pytest
import torch
from torch import nn

from ssm_core.errors import CheckpointError
from ssm_core.train.checkpoint import load_state, load_weights, save_weights
from ssm_core.train.fit import fit
from ssm_core.train.folder import LAST, WEIGHTS
from ssm_core.train.start_from import read_tensors, start_from


class Adapting(nn.Module):
    """Takes a table of another length, and trains another head anew."""

    def __init__(self, length=4, classes=3):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(length))
        self.head = nn.Linear(2, classes)

    def adapt(self, tensors):
        own = self.state_dict()
        fitting = {n: t for n, t in tensors.items() if n == "table" or own[n].shape == t.shape}
        fitting["table"] = fitting["table"][:1].expand(len(self.table))
        return fitting


@pytest.fixture
def trained(tmp_path):
    layer = nn.Linear(3, 2)
    save_weights(tmp_path / "w.safetensors", layer, {})
    torch.save(layer.state_dict(), tmp_path / "plain.pth")
    torch.save(
        {"model": layer.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        tmp_path / "container.pth",
    )
    wrapped = {f"module.{name}": value for name, value in layer.state_dict().items()}
    torch.save({"state_dict": wrapped, "optimizer": {"x": [1]}}, tmp_path / "wrapped.pth")
    return tmp_path, layer


@pytest.mark.parametrize("name", ["w.safetensors", "plain.pth", "container.pth", "wrapped.pth"])
def test_every_kind_of_file(trained, name):
    folder, layer = trained
    other = nn.Linear(3, 2)
    assert start_from(other, folder / name) == []
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(other.bias, layer.bias)


def test_without_adapt_everything_must_fit(trained):
    folder, _ = trained
    with pytest.raises(CheckpointError, match=r"weight has shape \(2, 3\), expected \(2, 4\)"):
        start_from(nn.Linear(4, 2), folder / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit this model: unexpected bias"):
        start_from(nn.Linear(3, 2, bias=False), folder / "w.safetensors")
    save_weights(folder / "few.safetensors", nn.Linear(3, 2, bias=False), {})
    with pytest.raises(CheckpointError, match=r"few\.safetensors: .*: missing bias"):
        start_from(nn.Linear(3, 2), folder / "few.safetensors")


def test_adapt_decides_what_fits(tmp_path):
    old = Adapting(length=2, classes=5)
    nn.init.constant_(old.table, 4.0)
    save_weights(tmp_path / "old.safetensors", old, {})
    new = Adapting()
    head = new.head.weight.detach().clone()
    assert start_from(new, tmp_path / "old.safetensors") == ["head.weight", "head.bias"]
    assert new.table.tolist() == [4.0] * 4
    assert torch.equal(new.head.weight, head)


def test_adapt_that_leaves_nothing_is_an_error(tmp_path):
    model = nn.Linear(2, 2)
    save_weights(tmp_path / "w.safetensors", model, {})
    model.adapt = lambda tensors: {}
    with pytest.raises(CheckpointError, match="missing weight, bias"):
        start_from(model, tmp_path / "w.safetensors")


def test_files_that_would_run_code_are_refused(tmp_path):
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"whole\.pth: damaged, or holds more than") as caught:
        read_tensors(tmp_path / "whole.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"not a file of torch", "damaged"),
        ("a.safetensors", b"nor of safetensors", "damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: {message}"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "none"])
def test_absent_files_are_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=f"{name}: no such file"):
        read_tensors(tmp_path / name)


def test_a_file_without_a_state_dict(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "log.pth")
    with pytest.raises(CheckpointError, match=r"log\.pth: no state dict in it"):
        read_tensors(tmp_path / "log.pth")


def test_run_starts_from_a_run_and_does_not_read_it_again(host, config, tmp_path, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    fit(host, config(), old, resume=False)
    words = ("--trainer.start_from", str(old), "--optim.lr", "1e-12", "--optim.weight_decay", "0")
    fit(host, config(*words, "--trainer.max_steps", "4"), new, resume=False)
    assert f"starting from {old}" in capsys.readouterr().err
    first, second = load_weights(old / WEIGHTS)[0], load_weights(new / WEIGHTS)[0]
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-9)
    (old / WEIGHTS).unlink()
    assert read_tensors(old).keys() == load_state(old / LAST)["module"].keys()
    for path in sorted(old.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert fit(host, config(*words, "--trainer.max_steps", "6"), new, resume=True).step == 6


def test_run_that_cannot_start_leaves_nothing(train, tmp_path):
    code, _, err = train("fit", "points-net", "--trainer.start_from", str(tmp_path / "none.pth"))
    assert code == 2
    assert "none.pth: no such file" in err
    assert not list((tmp_path / "runs").iterdir())
