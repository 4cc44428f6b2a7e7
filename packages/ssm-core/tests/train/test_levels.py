"""A plugin lets a run train on from an earlier step: same data, same learning rates, new log."""

from __future__ import annotations

import pytest
import torch

from ssm_core import hookimpl
from ssm_core.train.fit import fit
from ssm_core.train.loggers import read_metrics
from ssm_core.train.recorder import loader_state

END = 18


class Again:
    """Goes back to `step` twice, and notes the data and the learning rate of every step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.kept = None
        self.steps: list[list[tuple[int, float, float]]] = [[]]

    @hookimpl
    def ssm_run_start(self, run) -> None:
        run.module.register_forward_pre_hook(self._note)
        self.run = run

    def _note(self, module, inputs) -> None:
        if module.training:
            lr = self.run.optimizer.param_groups[0]["lr"]
            self.steps[-1].append((self.run.step, float(inputs[0].sum()), lr))

    @hookimpl
    def ssm_step_end(self, run, metrics) -> None:
        if run.level == 0 and run.step == self.step and run.step % run.steps_per_epoch:
            self.kept = loader_state(run)

    @hookimpl
    def ssm_steps_done(self, run) -> bool | None:
        if run.level == 2:
            return None
        self.steps.append([])
        run.train_on(self.step, self.kept)
        return True

    @hookimpl
    def ssm_checkpoint_save(self, run, state) -> None:
        state["again"] = {"kept": self.kept}

    @hookimpl
    def ssm_checkpoint_load(self, run, state) -> None:
        self.kept = state["again"]["kept"]


def with_extension(monkeypatch, host, extension):
    manager = host.run_manager
    monkeypatch.setattr(host, "run_manager", lambda others: manager([*others, extension]))


@pytest.mark.parametrize("step", [0, 4, 6, 11, 17])
def test_levels_see_the_same_data_at_the_same_rates(host, config, tmp_path, monkeypatch, step):
    again = Again(step)
    with_extension(monkeypatch, host, again)
    words = ("--optim.schedule", "cosine", "--optim.warmup_steps", "3", "--trainer.log_every", "1")
    run = fit(host, config(*words), tmp_path, resume=False)
    first, *others = again.steps
    assert [number for number, _, _ in first] == list(range(END))
    for other in others:
        assert other == first[step:]
    curve = read_metrics(tmp_path / "metrics.csv")["train/loss"]
    assert [number for number, _ in curve] == list(range(1, 3 * END - 2 * step + 1))
    assert run.logged_step == 3 * END - 2 * step


@pytest.mark.parametrize("kill_at", [(0, 17), (1, 12), (1, 18), (2, 13)])
def test_a_killed_level_goes_on_bit_for_bit(host, config, tmp_path, monkeypatch, kill_at):
    words = ("--trainer.checkpoint_every", "1", "--trainer.log_every", "1")
    runs = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        extension = Again(11)
        with monkeypatch.context() as patch:
            with_extension(patch, host, extension)
            if name == "killed":
                _kill(patch, kill_at)
                with pytest.raises(KeyboardInterrupt):
                    fit(host, config(*words), folder, resume=False)
                patch.undo()
                with_extension(patch, host, Again(11))
                runs[name] = fit(host, config(*words), folder, resume=True)
            else:
                runs[name] = fit(host, config(*words), folder, resume=False)
    curves = [read_metrics(tmp_path / name / "metrics.csv")["train/loss"] for name in runs]
    assert curves[0] == curves[1]
    weights = [run.module.state_dict() for run in runs.values()]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def _kill(patch, kill_at) -> None:
    from ssm_core.train import loop

    step = loop._step

    def dying(run, batch, recorder):
        if (run.level, run.step + 1) == kill_at:
            raise KeyboardInterrupt
        return step(run, batch, recorder)

    patch.setattr(loop, "_step", dying)
