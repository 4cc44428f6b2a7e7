"""Two processes with gloo: one decides, all have the same masks, shards are masked in place.

`distributed_worker.py` runs all cases in one pair of processes. The engine trains with DDP; FSDP2
is tried with the controller in a loop of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssm_core.train.checkpoint import load_state
from ssm_prune.distributed import Processes, local, local_part, whole

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("distributed_worker.py")
PRUNED = ("in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight")


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def ranks(toy_site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What each of the two processes found, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join(filter(None, [str(toy_site), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ports = free_ports(4)
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(folder), *ports],
            env={**environment, "PYTHONHASHSEED": str(rank + 1)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=480)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-4000:]
    first, second = (
        json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)
    )
    return first, second


def test_the_first_process_decides_for_all(ranks: tuple[Any, Any]) -> None:
    first, second = (found["random"] for found in ranks)
    assert first["proposed"] != second["proposed"]  # there was something to agree on
    assert first["digests"] == second["digests"]
    assert first["digests"][-1] == first["proposed"]
    assert first["weights"] == second["weights"]
    assert first["removed"] == round(0.6 * first["total"])


def test_a_proposal_of_another_process_alone_is_none(ranks: tuple[Any, Any]) -> None:
    assert [found["stubborn"]["removed"] for found in ranks] == [0, 0]


def test_different_masks_end_the_run_and_name_the_ranks(ranks: tuple[Any, Any]) -> None:
    for found in ranks:
        assert found["refused"]["step"] == 5  # the first with removed weights
        assert (
            "masks after step 5 of rank 1 differ from those of rank 0" in found["refused"]["error"]
        )


def test_reduce_is_the_mean_over_ranks_and_leaves_its_argument(ranks: tuple[Any, Any]) -> None:
    for rank, found in enumerate(ranks):
        assert found["reduced"] == {
            "mean": [1.5, 3.0],
            "own": [1.0 * (rank + 1), 2.0 * (rank + 1)],
            "integers": [0.5, 4.0],
            "rank": rank,
            "size": 2,
        }


def test_halves_of_a_batch_on_two_ranks_give_the_masks_of_the_whole(
    ranks: tuple[Any, Any],
) -> None:
    joined = ranks[0]["joined"]
    assert len(set(joined["digests"])) > 5
    for found in ranks:
        assert found["halves"]["digests"] == joined["digests"]
        for name, values in joined["weights"].items():
            assert found["halves"]["weights"][name] == pytest.approx(values, abs=1e-12), name


def test_sharded_weights_and_slots_are_zero_under_the_masks(ranks: tuple[Any, Any]) -> None:
    first, second = (found["sharded"] for found in ranks)
    assert first["removed"] == second["removed"]
    assert first["revived"] == second["revived"] == 0
    assert first["kinds"] == ["exp_avg", "exp_avg_sq", "weight"]
    assert first["local"] + second["local"] == first["all"]  # they were sharded
    state = load_state(Path(first["file"]))
    zeros = sum(int((state["model"][name] == 0).sum()) for name in first["prunable"])
    assert zeros == round(0.6 * first["total"]) == first["removed"][-1]
    for name, saved in state["masks"].items():
        assert saved["shape"] == list(state["model"][name].shape)


def test_without_enforcement_sharded_weights_come_back(ranks: tuple[Any, Any]) -> None:
    assert all(found["unenforced"]["revived"] > 0 for found in ranks)


def test_masks_replaced_on_shards_are_the_new_ones(ranks: tuple[Any, Any]) -> None:
    assert all(found["replaced"]["equal"] == [True] * 3 for found in ranks)


def test_a_run_of_two_processes_has_the_zeros_asked_for(ranks: tuple[Any, Any]) -> None:
    assert [found["run"]["code"] for found in ranks] == [0, 0], ranks[0]["run"]["error"]
    for name in ("model.safetensors", "model_ema.safetensors"):
        weights = load_file(Path(ranks[0]["run"]["out"]) / "toy-001" / name)
        pruned = [w for n, w in weights.items() if n.startswith("tower") and n.endswith(PRUNED)]
        assert sum(int((w == 0).sum()) for w in pruned) == round(
            0.7 * sum(map(torch.numel, pruned))
        )


def test_a_run_whose_processes_differ_fails(ranks: tuple[Any, Any]) -> None:
    assert [found["apart"]["code"] for found in ranks] == [2, 2]
    for found in ranks:
        assert "masks after step 2 of rank 1 differ" in found["apart"]["error"]


def test_units_are_taken_out_and_levels_trained_by_two_processes(ranks: tuple[Any, Any]) -> None:
    for case in ("removed", "levels"):
        first, second = (found[case] for found in ranks)
        assert (first["code"], second["code"]) == (0, 0), (case, first["error"])
        # what each trains on differs: without averaged gradients, also after the change, so would
        # the weights
        assert first["weights"] == second["weights"] != []
    small = Path(ranks[0]["removed"]["out"]) / "toy-001"
    state = load_state(small / "checkpoints" / "last.safetensors")
    for weights in (load_file(small / "model.safetensors"), state["module"], state["ema"]):
        assert [weights[f"tower.layers.{i}.mixer.D"].shape for i in range(2)] == [(8,), (8,)]
    (removal,) = state["plugins"]["prune"]["removals"]
    assert (removal["step"], state["step"]) == (4, 8)

    folder = Path(ranks[0]["levels"]["out"]) / "toy-001"
    assert len(list((folder / "checkpoints").glob("rewind-*"))) == 1
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    rows = [row for row in report["updates"] if "level" in row]
    assert [row["level"] for row in rows] == [0, 1, 2]
    removed = [round(fraction * rows[0]["total"]) for fraction in (0, 0.2, 0.36)]
    assert [row["pruned"] for row in rows] == removed
    for name in ("model.safetensors", "model_ema.safetensors"):
        weights = load_file(folder / name)
        pruned = [w for n, w in weights.items() if n.startswith("tower") and n.endswith(PRUNED)]
        assert sum(int((w == 0).sum()) for w in pruned) == removed[-1]


def test_one_process_alone_decides_for_itself() -> None:
    alone = Processes()
    value = torch.tensor([1.0, 2.0])
    assert (alone.rank, alone.size) == (0, 1)
    assert torch.equal(alone.mean(value), value)
    assert alone.mean(value).data_ptr() != value.data_ptr()
    assert alone.of_first(value) is value
    assert alone.check_equal(1, "anything") is None
    assert whole(value) is local(value) is local_part(value, value) is value
