"""A third-party method: its wheel is built, installed, found, used, resumed, and missed when gone.

The environment is a fresh virtual one, whose interpreter runs every command. Only what was there
before (PyTorch, our packages) it finds outside, since installing that takes minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file

TEMPLATE = Path(__file__).parents[1] / "examples" / "ssm-prune-template"
METHOD = ("--prune", "decayed-taylor", "--prune.sparsity", "0.6", "--prune.every", "1it")
Train = Callable[..., Path]

#: imports take most of the time of a command: they happen once, and each command is a fork of that
#: process, which knows no plugin
WARM = """
import json, os, sys

import pytest
import torch._dynamo  # by the first optimizer
import torch.utils.tensorboard
import torchmetrics.classification

import ssm_core.train.fit
import ssm_core.train.report
from ssm_core.cli import main

answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    program, words, output = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        code = 70
        try:
            code = (main if program == "ssm-train" else pytest.main)(words)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, file=answers, flush=True)
os._exit(0)  # tearing PyTorch down takes seconds
"""

pytestmark = [
    pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are forks of a warm process"),
]


class Environment:
    """A virtual environment of its own, in `folder`.

    Args:
        site: folder of the toy recipe.
    """

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=False)
        paths = sysconfig.get_paths(vars={"base": str(folder / "venv")})
        self.packages = Path(paths["purelib"])
        self.python = str(Path(paths["scripts"]) / "python")
        outside = [sysconfig.get_path("purelib"), str(site)]
        lines = [f"import site; site.addsitedir({place!r})\n" for place in outside]
        (self.packages / "outside.pth").write_text("".join(lines), encoding="utf-8")
        own = {"PYTHONHASHSEED": "random", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [self.python, "-c", WARM],
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def pip(self, *words: str) -> None:
        """Run the pip of the tests for this environment."""
        common = ["--disable-pip-version-check", "--quiet", "--python", self.python]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *common, *words],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *words: str) -> tuple[int, str]:
        """Exit code of a command (`ssm-train` or `pytest`) and what it printed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        output = self.folder / "output"
        self.process.stdin.write(json.dumps([program, words, str(output)]) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return code, output.read_text(encoding="utf-8")


@pytest.fixture
def environment(toy_site: Path, tmp_path: Path) -> Iterator[Environment]:
    """A virtual environment into which pip has installed the wheel of the template."""
    made = Environment(tmp_path, toy_site)
    try:
        source = tmp_path / "source"
        # a copy: building must not leave files in the checkout
        shutil.copytree(TEMPLATE, source)
        alone = ("--no-build-isolation", "--no-deps", "--no-index")
        made.pip("wheel", *alone, "--wheel-dir", str(tmp_path), str(source))
        (wheel,) = tmp_path.glob("*.whl")
        assert wheel.name == "ssm_prune_template-0.3.0-py3-none-any.whl"
        # with its dependency, which has to be there: pip may look nowhere else
        made.pip("install", "--no-index", str(wheel))
        yield made
    finally:
        made.process.communicate(timeout=60)


def test_the_installed_method_is_found_used_resumed_and_missed(
    environment: Environment, tmp_path: Path
) -> None:
    code, listed = environment.run("ssm-train", "list", "pruners")
    assert code == 0, listed
    (line,) = [row for row in listed.splitlines() if row.startswith("decayed-taylor")]
    assert "ssm-prune-template 0.3.0" in line

    fit = ["fit", "toy", "--out", str(tmp_path / "runs"), *METHOD, "--prune.beta", "0.8"]
    code, printed = environment.run("ssm-train", *fit)
    assert code == 0, printed
    folder = tmp_path / "runs" / "toy-001"
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    assert report["provider"] == "ssm-prune-template 0.3.0"
    weights = load_file(folder / "model.safetensors")
    allowed = [tensor["name"] for tensor in report["tensors"] if tensor["may_be_pruned"]]
    zeros = sum(int((weights[name] == 0).sum()) for name in allowed)
    assert zeros == round(0.6 * sum(weights[name].numel() for name in allowed)) > 0

    # as if it had been killed after its last checkpoint
    (folder / "status.json").write_text('{"state": "running"}', encoding="utf-8")
    code, printed = environment.run("ssm-train", *fit, "--resume", "auto")
    assert code == 0, printed
    assert f"resuming {folder}" in printed

    test = TEMPLATE / "tests" / "test_method.py"
    plain = ["-p", "no:cacheprovider", "--import-mode=importlib", "-q", "-c", os.devnull]
    code, printed = environment.run("pytest", *plain, str(test))
    assert code == 0, printed
    assert "1 passed" in printed

    environment.pip("uninstall", "--yes", "ssm-prune-template")
    (folder / "status.json").write_text('{"state": "running"}', encoding="utf-8")
    before = {p: p.read_bytes() for p in folder.rglob("*.safetensors")}
    for words in (fit, fit[:4]):
        code, printed = environment.run("ssm-train", *words, "--resume", "auto")
        assert code == 2, printed
        (*_, line) = printed.strip().splitlines()
        assert line.startswith("ssm-train: error: unknown pruner 'decayed-taylor'")
    assert {p: p.read_bytes() for p in folder.rglob("*.safetensors")} == before


def test_a_plugin_that_raises_on_import_stops_only_who_asks_for_its_method(
    make_distribution: Callable[..., Path], train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    make_distribution("acme-prune", "1.2", "acme_raises", "raise OSError('no licence')")
    short = ("--trainer.max_steps", "2", "--prune.sparsity", "0.3")
    assert (train("--prune", "dynamic-cosine", *short) / "prune_report.json").is_file()
    capsys.readouterr()
    train("--prune", "acme-magic", *short, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "'acme-magic'" in line
    assert "acme-prune 1.2" in line
    assert "no licence" in line
