"""torch.compile and torch.export of layers and towers: whole graphs, any batch and length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from ssm_core.layers.bimamba import BiMamba
from ssm_core.layers.mamba import Mamba
from ssm_core.layers.mamba2 import Mamba2
from ssm_core.layers.mamba2_config import Mamba2Config
from ssm_core.layers.mamba3 import Mamba3
from ssm_core.layers.mamba3_config import Mamba3Config
from ssm_core.layers.s4 import S4, S4Config
from ssm_core.layers.s4d import S4D, S4DConfig
from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config
from ssm_core.tower import Tower, TowerConfig

WIDTH = 8
LONGEST = 100  # a compiled graph of S4 has a kernel that it cannot lengthen


def _tower(make_mixer: Callable[[], nn.Module]) -> Tower:
    config = TowerConfig(WIDTH, n_layers=2, mlp_hidden=12, dropout=0.1, drop_path=0.1)
    return Tower(make_mixer, config).eval()


MODELS = {
    "mamba": lambda: Mamba(WIDTH),
    "bimamba": lambda: BiMamba(WIDTH),
    "mamba2": lambda: Mamba2(WIDTH, Mamba2Config(headdim=4, ngroups=2, learnable_init_states=True)),
    "mamba3": lambda: Mamba3(WIDTH, Mamba3Config(d_state=6, headdim=4, ngroups=2)),
    "mamba2 partly": lambda: Mamba2(
        WIDTH, Mamba2Config(headdim=4, d_ssm=8, rmsnorm=False, dt_limit=(0.01, 1.0))
    ),
    "s4": lambda: S4(WIDTH, S4Config(d_state=6, l_max=LONGEST)),
    "s4 bidirectional": lambda: S4(
        WIDTH, S4Config(4, channels=2, bidirectional=True, n_ssm=2, l_max=LONGEST)
    ),
    "s4d": lambda: S4D(WIDTH, S4DConfig(d_state=8, dropout=0.1, tie_dropout=True)).eval(),
    "s4d in both directions": lambda: S4D(
        WIDTH, S4DConfig(d_state=8, channels=2, bidirectional=True, disc="bilinear")
    ),
    "s5": lambda: S5(WIDTH),
    "s5 in both directions": lambda: S5(WIDTH, S5Config(bidirectional=True, dropout=0.2)).eval(),
    "tower of mamba": lambda: _tower(lambda: Mamba(WIDTH)),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def outcome(model: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """The output and the gradients of all parameters."""
    y = run(x)
    gradients = torch.autograd.grad(y.sin().sum(), list(model.parameters()))
    return [y.detach(), *gradients]


@pytest.mark.parametrize("name", MODELS)
def test_one_graph_for_every_batch_and_length(name: str) -> None:
    model = MODELS[name]()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for b, l in ((2, 20), (3, 33), (4, 7), (5, 64)):
        x = torch.randn(b, l, WIDTH)
        torch._dynamo.mark_dynamic(x, 0)
        torch._dynamo.mark_dynamic(x, 1)
        for got, expected in zip(
            outcome(model, compiled, x), outcome(model, model, x), strict=True
        ):
            # a graph of S4 or S4D may have another FFT than the layer by itself, and its roundings
            loose = {"rtol": 1e-4, "atol": 1e-5} if name.startswith("s4") else {}
            torch.testing.assert_close(got, expected, **loose)
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", MODELS)
def test_training_under_autocast(name: str) -> None:
    model = MODELS[name]().train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 9, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(0)
        got = outcome(model, compiled, x)
        torch.manual_seed(0)
        expected = outcome(model, model, x)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype is b.dtype
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "name", ["mamba", "mamba2", "mamba2 partly", "mamba3", "s4", "s4d", "s5", "tower of mamba"]
)
def test_a_compiled_step_continues_a_sequence(name: str) -> None:
    model = MODELS[name]()
    x = torch.randn(2, 5, WIDTH)
    with torch.no_grad():
        whole = model(x)
        step = torch.compile(model.step, fullgraph=True, backend="aot_eager")
        state = model.initial_state(2)
        for t in range(5):
            y, state = step(x[:, t], state)
            torch.testing.assert_close(y, whole[:, t])


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_export_with_any_batch_and_length(name: str, strict: bool, tmp_path: Path) -> None:
    if name in ("s4", "s4 bidirectional") and not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("PyTorch 2.6 cannot tell S4 that it exports, so that it needs a bound of l")
    model = MODELS[name]()
    sizes = {0: torch.export.Dim("b"), 1: torch.export.Dim("l")}
    with torch.no_grad():
        program = torch.export.export(
            model, (torch.randn(2, 20, WIDTH),), dynamic_shapes=(sizes,), strict=strict
        )
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for b, l in ((3, 33), (5, 7)):
        x = torch.randn(b, l, WIDTH)
        torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.filterwarnings("ignore:Skipping serialization of")  # PyTorch 2.6
@pytest.mark.slow
def test_inductor(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no graphs of earlier sessions; headers are compiled once for all processes of this one
    own = tmp_path_factory.getbasetemp()
    cache = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    model = Tower(lambda: Mamba(WIDTH), TowerConfig(WIDTH, n_layers=1))
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(2, 20, WIDTH)
    for got, expected in zip(outcome(model, compiled, x), outcome(model, model, x), strict=True):
        torch.testing.assert_close(got, expected)
