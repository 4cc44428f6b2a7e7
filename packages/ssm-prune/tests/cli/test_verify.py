"""`ssm-prune verify` finds what is wrong in files, however it came there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssm_prune.cli.main import main

IN_PROJ = "tower.layers.0.mixer.in_proj.weight"
Train = Callable[..., Path]


def edit(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    """Change tensors and metadata of a file."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def failures(capsys: pytest.CaptureFixture[str], path: Path) -> list[str]:
    capsys.readouterr()
    assert main(["verify", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.strip().splitlines()


def test_a_good_run_passes_with_its_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run)]) == 0
    shown = capsys.readouterr().out
    weights = load_file(run / "model.safetensors")
    parts = ("in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight")
    prunable = [w for n, w in weights.items() if n.startswith("tower") and n.endswith(parts)]
    total, left = sum(w.numel() for w in prunable), sum(int((w != 0).sum()) for w in prunable)
    assert left == total - round(0.6 * total)
    assert f"{total:,}" in shown
    assert f"{left:,}" in shown
    assert main(["verify", str(run / "model.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "masks" not in shown  # a weights file has none
    assert f"{left:,}" in shown


def test_a_weight_under_the_mask_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def revive(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        place = tuple((tensors[IN_PROJ] == 0).nonzero()[7].tolist())
        tensors[IN_PROJ][place] = 1.0

    edit(run / "model.safetensors", revive)
    (line,) = failures(capsys, run)
    assert f"{IN_PROJ}: 1 weights under the mask are not 0" in line
    assert line.endswith("= 1")


def test_a_weight_that_is_zero_without_a_mask_is_found(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors[IN_PROJ][tuple((tensors[IN_PROJ] != 0).nonzero()[0].tolist())] = 0.0

    edit(run / "model.safetensors", kill)
    (line,) = failures(capsys, run)
    assert f"{IN_PROJ}: 1 weights are 0 although the mask keeps them" in line


def test_a_missing_mask_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def forget(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tree = json.loads(metadata["tree"])
        del tree["plugins"]["prune"]["masks"][IN_PROJ]
        metadata["tree"] = json.dumps(tree)

    edit(run / "checkpoints" / "last.safetensors", forget)
    lines = failures(capsys, run)
    assert any(f"{IN_PROJ}: " in line and "has no mask of it" in line for line in lines)
    assert any("the last mask update removed" in line for line in lines)


def test_a_flipped_bit_of_a_mask_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def flip(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        masks = json.loads(metadata["tree"])["plugins"]["prune"]["masks"]
        tensors[masks[IN_PROJ]["bits"]["tensor"]][3] ^= 1

    edit(run / "checkpoints" / "last.safetensors", flip)
    assert any(IN_PROJ in line for line in failures(capsys, run))


@pytest.mark.parametrize("name", ["A_log", "D", "conv1d.weight"])
def test_zeros_in_what_may_not_be_pruned_are_found(
    run: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    full = f"tower.layers.1.mixer.{name}"

    def zero(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors[full].view(-1)[-1] = 0.0

    edit(run / "model.safetensors", zero)
    (line,) = failures(capsys, run)
    assert f"{full}: 1 weights became 0 although" in line


def test_too_little_sparsity_is_found_without_the_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def revive(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors[IN_PROJ][tensors[IN_PROJ] == 0] = 0.5

    edit(run / "model.safetensors", revive)
    (line,) = failures(capsys, run / "model.safetensors")
    assert "requested was 60.00%" in line


def test_a_smaller_tensor_needs_sizes_in_the_metadata(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors[IN_PROJ] = tensors[IN_PROJ][:-2].clone()

    edit(run / "model.safetensors", cut)
    lines = failures(capsys, run / "model.safetensors")
    assert any("the metadata has no sizes" in line for line in lines)
    assert any("cannot be loaded" in line for line in lines)

    def damage(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["sizes"] = "{"

    edit(run / "model.safetensors", damage)
    assert any("sizes" in line for line in failures(capsys, run / "model.safetensors"))


def test_the_moving_average_is_checked(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--prune", "dynamic-cosine", "--prune.sparsity", "0.5")
    folder = train(*words, "--trainer.ema_decay", "0.5")

    def clean(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        weights = load_file(folder / "model.safetensors")
        for name, tensor in tensors.items():
            name = name.removeprefix("state.ema.")
            if name in weights and name.endswith("proj.weight"):
                tensor[weights[name] == 0] = 0.0

    for file in ("model_ema.safetensors", "checkpoints/last.safetensors"):
        edit(folder / file, clean)
    assert main(["verify", str(folder)]) == 0

    def revive(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors[IN_PROJ].fill_(1.0)

    edit(folder / "model_ema.safetensors", revive)
    (line,) = failures(capsys, folder)
    assert f"average: {IN_PROJ}" in line


def test_a_run_without_pruning_or_without_weights_is_refused(
    train: Train, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = train(out="plain")
    capsys.readouterr()
    assert main(["verify", str(plain)]) == 2
    assert "was not pruned" in capsys.readouterr().err
    (run / "model.safetensors").unlink()
    assert main(["verify", str(run)]) == 2
    assert "is not finished" in capsys.readouterr().err


def test_masks_are_unpacked_like_they_were_packed() -> None:
    """The reader is written on its own; here it meets the writer."""
    from ssm_prune.cli.saved import _mask
    from ssm_prune.masks import pack_bits

    flags: Any = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    node = {"bits": {"tensor": "x"}, "shape": [7, 5]}
    assert torch.equal(_mask(node, {"x": pack_bits(flags)}), flags)
