"""Reading weights: every kind of file and place, and what may be wrong with them."""

from __future__ import annotations

import argparse
import fractions
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import Tensors
from ssm_vision import checkpoints

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


def read(source: str | Path) -> Tensors:
    return checkpoints.read_file(checkpoints.locate(source))


def check(read: dict[str, torch.Tensor]) -> None:
    assert list(read) == list(WEIGHTS)
    for name, value in WEIGHTS.items():
        torch.testing.assert_close(read[name], value)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pth.tar"])
@pytest.mark.parametrize(
    "container", [None, "model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema"]
)
@pytest.mark.parametrize("wrapper", ["", "module.", "module._orig_mod."])
def test_files_of_training_scripts(
    tmp_path: Path, suffix: str, container: str | None, wrapper: str
) -> None:
    named = {wrapper + name: value for name, value in WEIGHTS.items()}
    beside = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}}
    torch.save({container: named, **beside} if container else named, tmp_path / f"w{suffix}")
    check(read(tmp_path / f"w{suffix}"))


def test_the_model_itself_comes_before_its_average(tmp_path: Path) -> None:
    average = {name: value + 1 for name, value in WEIGHTS.items()}
    torch.save({"model_ema": average, "model": WEIGHTS}, tmp_path / "w.pth")
    check(read(str(tmp_path / "w.pth")))


def test_safetensors_and_run_folders(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    check(read(tmp_path / "model.safetensors"))
    check(read(tmp_path))
    with pytest.raises(CheckpointError, match=r"no model.safetensors in this folder"):
        read(tmp_path.parent)


def test_a_trained_run(run: Path) -> None:
    assert "head.weight" in read(run)


def test_code_is_never_run(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "config": fractions.Fraction(1, 3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path / "w.pth")
    assert "holds a fractions.Fraction beside the weights" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02no weights at all")
    with pytest.raises(CheckpointError, match=f"{name}: damaged") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: epoch is a int, expected a tensor"):
        read(tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"list\.pth: the state dict is a list"):
        read(tmp_path / "list.pth")
    (tmp_path / "w.ckpt").touch()
    with pytest.raises(CheckpointError, match=r"w\.ckpt: expected a file that ends in"):
        read(tmp_path / "w.ckpt")


@pytest.mark.parametrize("source", ["absent.pth", "folder/absent.pth", "a/b/c.pth", "absent"])
def test_nothing_there(source: str) -> None:
    with pytest.raises(CheckpointError, match=f"{source}: no such file or folder, and no id of"):
        read(source)


class Hub:
    """In the place of huggingface_hub: the files of one repository, in a folder."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.names = folder, list(names)

    def list_repo_files(self, repository: str) -> list[str]:
        assert repository == "org/some.model-1"
        return self.names

    def hf_hub_download(self, repository: str, name: str) -> str:
        if name not in self.names:
            raise RuntimeError(f"404 Client Error\nEntry {name} not found")
        (self.folder / name).parent.mkdir(exist_ok=True)
        torch.save(WEIGHTS, self.folder / name)
        if name.endswith(".safetensors"):
            save_file(WEIGHTS, self.folder / name)
        return str(self.folder / name)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("org/some.model-1", ["README.md", "model.safetensors", "pytorch_model.bin"]),
        ("org/some.model-1", ["pytorch_model.bin", "optimizer.pt"]),
        ("org/some.model-1", ["README.md", "vim_t_midclstok_76p1acc.pth"]),
        ("org/some.model-1:sub/b.pth", ["a.pth", "sub/b.pth"]),
    ],
)
def test_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, names: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path, *names))
    check(read(source))


def test_the_hub_cannot_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path, "a.pth", "b.pth"))
    with pytest.raises(CheckpointError, match=r"pass org/some.model-1:FILE with one of a.pth, b"):
        read("org/some.model-1")
    with pytest.raises(CheckpointError, match=r"cannot be had .*: RuntimeError: 404 Client Error$"):
        read("org/some.model-1:c.pth")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="needs `pip install huggingface_hub`"):
        read("org/some.model-1")


def test_a_model_without_a_head_and_positions(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    tensors = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    checkpoints.fill("layer", layer, tensors, resized=True)
    torch.testing.assert_close(layer.weight, torch.ones(2, 3))
    with pytest.raises(CheckpointError, match="layer: the state dict does not fit: missing bias"):
        checkpoints.fill("layer", layer, {"weight": torch.ones(2, 3)}, resized=True)
