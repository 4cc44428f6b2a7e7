"""Whole units pruned and taken out inside `ssm-train fit`; everything is read from the files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ssm_core.cli import main
from ssm_core.train.checkpoint import load_state
from ssm_core.train.loggers import read_metrics
from ssm_core.train.optim import parameter_groups
from ssm_core.train.restore import load_run

Train = Callable[..., Path]
Interrupt = Callable[[int], AbstractContextManager[None]]
PRUNE = ("--prune", "dynamic-cosine", "--prune.sparsity", "0.5")
TIMES = ("--prune.begin", "1it", "--prune.end", "4it", "--prune.every", "1it")
CHANNELS = (*PRUNE, *TIMES, "--prune.units", "channels")
REMOVED = (*CHANNELS, "--prune.remove", "true")
AVERAGED = ("--trainer.ema_decay", "0.5")
#: channels of the toy model's mixers, and of what is left of them
E, LEFT = 16, 8


def last(folder: Path) -> dict[str, object]:
    return load_state(folder / "checkpoints" / "last.safetensors")


def sizes_in(path: Path) -> list[dict[str, dict[str, object]]]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["sizes"])


def slots(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The optimizer's slots in the checkpoint by name of the parameter."""
    module = load_run(folder).module
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    ordered = [p for group in parameter_groups(module, 0.05) for p in group["params"]]
    saved = last(folder)["optimizer"]["state"]
    return {names[id(p)]: saved[i] for i, p in enumerate(ordered)}


def cut(name: str, value: Tensor, keep: dict[str, Tensor]) -> Tensor:
    """What stays of a tensor of the toy model, written out."""
    prefix, _, leaf = name.rpartition("mixer.")
    if not prefix or value.ndim == 0:
        return value
    kept = keep[f"{prefix}mixer"].nonzero().flatten()
    if leaf == "in_proj.weight":
        return value[torch.cat([kept, kept + E])]
    if leaf in ("x_proj.weight", "out_proj.weight"):
        return value[:, kept]
    return value if leaf == "out_proj.bias" else value[kept]


def test_weights_slots_and_averages_are_those_of_the_units_that_stay(train: Train) -> None:
    length = ("--trainer.max_steps", "4", *AVERAGED)
    masked = train(*CHANNELS, *length, out="masked")
    removed = train(*REMOVED, *length, out="removed")
    whole, small = last(masked), last(removed)
    keep = {n: k.bool() for n, k in whole["plugins"]["prune"]["units"].items()}
    assert [int(k.sum()) for k in keep.values()] == [LEFT, LEFT]
    for part in ("module", "ema"):
        for name, value in whole[part].items():
            assert torch.equal(small[part][name], cut(name, value, keep)), (part, name)
    before, after = slots(masked), slots(removed)
    assert before.keys() == after.keys()
    for name, saved in before.items():
        assert saved.keys() == after[name].keys()
        for slot, value in saved.items():
            assert torch.equal(after[name][slot], cut(name, value, keep)), (name, slot)
    expected = {f"tower.layers.{i}.mixer": {"d_inner": LEFT} for i in range(2)}
    for name in ("model.safetensors", "model_ema.safetensors"):
        assert sizes_in(removed / name) == [expected]
    assert small["sizes"] == [expected]
    curves = [read_metrics(folder / "metrics.csv")["eval/loss"] for folder in (masked, removed)]
    assert curves[0][-1][1] == pytest.approx(curves[1][-1][1], rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "stop"), [("channels", 3), ("channels", 4), ("channels", 6), ("blocks", 6)]
)
def test_a_run_stopped_around_the_removal_goes_on_bit_for_bit(
    train: Train, interrupt: Interrupt, kind: str, stop: int
) -> None:
    words = (*REMOVED, "--prune.units", kind, *AVERAGED, "--trainer.max_steps", "8")
    whole = train(*words, out="whole")
    with interrupt(stop):
        stopped = train(*words, out="stopped", code=130)
    assert bool(last(stopped)["sizes"]) == (stop >= 4)
    resumed = train(*words, "--resume", "auto", out="stopped")
    assert resumed == stopped
    for name in ("model.safetensors", "model_ema.safetensors"):
        ours, theirs = load_file(resumed / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert sizes_in(resumed / name) == sizes_in(whole / name)
    losses = [read_metrics(folder / "metrics.csv")["train/loss"] for folder in (resumed, whole)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 8
    first, second = (last(folder)["plugins"]["prune"] for folder in (resumed, whole))
    assert first["removals"] == second["removals"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((*PRUNE, *TIMES, "--prune.units", "heads"), "the model has no heads"),
        ((*PRUNE, *TIMES, "--prune.remove", "true"), "single weights cannot be taken out"),
        ((*PRUNE, *TIMES, "--prune.units", "rows"), "prune.units"),
    ],
)
def test_what_cannot_be_removed_is_one_line(
    train: Train, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    train(*words, code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert expected in lines[-1]
    assert lines[-1].startswith("ssm-train: error: ")


def test_a_request_between_two_multiples_is_rounded_and_reported(train: Train) -> None:
    folder = train(*REMOVED, "--prune.sparsity", "0.6", "--trainer.max_steps", "6")
    assert load_file(folder / "model.safetensors")["tower.layers.0.mixer.D"].shape == (LEFT,)
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    assert report["requested_sparsity"] == 0.6
    assert report["achieved_sparsity"] == 0.5


def test_units_that_were_not_removed_fail_the_run(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ssm_prune.methods.dynamic.DynamicCosine.after_optimizer_step", lambda self, ctx: None
    )
    train(*REMOVED, "--trainer.max_steps", "6", code=2)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "asked to remove 50.0%" in message
    assert "removed 0.0%" in message


# ---- recipes of the other packages --------------------------------------------------------------

SMALL = """--trainer.max_epochs null --trainer.max_steps 24 --trainer.accelerator cpu
    --trainer.log_every 1 --optim.warmup_steps 0 --loader.batch_size 8 --prune dynamic-cosine
    --prune.units channels --prune.sparsity 0.5 --prune.remove true --prune.begin 2it
    --prune.end 10it --prune.every 2it"""

LOAD_ELSEWHERE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ssm_prune":
            raise ImportError("ssm_prune is not installed here")

sys.meta_path.insert(0, Blocker())
from pathlib import Path
import torch
from ssm_core.train.checkpoint import save_state
from ssm_core.train.restore import load_run
run = load_run(Path(sys.argv[1]))
assert not any(name.partition(".")[0] == "ssm_prune" for name in sys.modules)
torch.manual_seed(0)
x = {inputs}
with torch.no_grad():
    save_state(Path(sys.argv[2]), {{"y": run.module(x)}})
"""


def text_words(folder: Path) -> str:
    (folder / "abc.txt").write_text("abcdefgh\n" * 200, encoding="utf-8")
    return f"""stdlib-mamba --model.d_model 16 --model.n_layers 2 --trainer.eval_every null
        --data text-file --data.path {folder / "abc.txt"} --data.context 18 --optim.lr 0.02"""


def digits_words(folder: Path) -> str:
    return """digits-bimamba --model.d_model 16 --model.n_layers 1 --trainer.eval_batches 1
        --optim.lr 0.005"""


def test_layer_decay_would_not_know_the_order_of_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ssm_vision")
    words = [*digits_words(tmp_path).split(), *SMALL.split(), "--optim.layer_decay", "0.5"]
    assert main(["fit", *words, "--prune.units", "blocks", "--out", str(tmp_path)]) == 2
    assert "expected optim.layer_decay null" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "words", "inputs"),
    [
        ("ssm_text", text_words, "torch.randint(9, (2, 12))"),
        ("ssm_vision", digits_words, "torch.randn(2, 1, 8, 8)"),
    ],
)
def test_a_recipe_pruned_for_real_is_an_ordinary_smaller_model(
    tmp_path: Path, package: str, words: Callable[[Path], str], inputs: str
) -> None:
    pytest.importorskip(package)
    assert main(["fit", *words(tmp_path).split(), *SMALL.split(), "--out", str(tmp_path)]) == 0
    (folder,) = tmp_path.glob("*-001")
    weights = load_file(folder / "model.safetensors")
    small = {name: w.shape for name, w in weights.items() if name.endswith("mixer.in_proj.weight")}
    assert set(small.values()) <= {torch.Size([2 * kept, 16]) for kept in (8, 16, 24, 32)}
    assert sum(shape[0] for shape in small.values()) == 32 * len(small)  # half of 2 x 32
    (sizes,) = sizes_in(folder / "model.safetensors")
    for name, values in sizes.items():
        assert values == {"d_inner": small[f"{name}.in_proj.weight"][0] // 2}
    losses = [value for _, value in read_metrics(folder / "metrics.csv")["train/loss"]]
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-5:]) < sum(losses[9:14])  # it learns on after the removal in step 10

    module = load_run(folder).module
    torch.manual_seed(0)
    x = eval(inputs)
    with torch.no_grad():
        expected = module(x)
    program = LOAD_ELSEWHERE.format(inputs=inputs)
    subprocess.run(
        [sys.executable, "-c", program, str(folder), str(tmp_path / "y")], check=True, timeout=300
    )
    assert torch.equal(load_state(tmp_path / "y")["y"], expected)
    exported = torch.export.export(module, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), expected, rtol=1e-5, atol=1e-6)
