"""A third-party method: its wheel is built and installed by pip, found, used, resumed, missed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file

TEMPLATE = Path(__file__).parents[1] / "examples" / "ssm-prune-template"
METHOD = ("--prune", "decayed-taylor", "--prune.sparsity", "0.6", "--prune.every", "1it")
Train = Callable[..., Path]
SsmTrain = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed")


def call(words: Sequence[str], path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONHASHSEED": "random",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the wheel of the template."""
    folder = tmp_path_factory.mktemp("third-party")
    common = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    source = folder / "source"
    # a copy: building must not leave files in the checkout
    shutil.copytree(TEMPLATE, source)
    wheels = ["wheel", *common, "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    built = call(["-m", "pip", *wheels])
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == "ssm_prune_template-0.3.0-py3-none-any.whl"
    site = folder / "site"
    done = call(["-m", "pip", "install", *common, "--target", str(site), str(wheel)])
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture
def ssm_train(toy_site: Path) -> SsmTrain:
    """`ssm_train(words, *folders)`: the command in a fresh process that sees these folders."""

    def run(words: Sequence[str], *folders: Path) -> subprocess.CompletedProcess[str]:
        program = "import sys; from ssm_core.cli import main; sys.exit(main())"
        return call(["-c", program, *words], [toy_site, *folders])

    return run


def test_the_installed_method_is_found_used_resumed_and_missed(
    installed: Path,
    ssm_train: SsmTrain,
    train: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = ssm_train(["list", "pruners"], installed)
    (line,) = [row for row in listed.stdout.splitlines() if row.startswith("decayed-taylor")]
    assert "ssm-prune-template 0.3.0" in line

    fit = ["fit", "toy", "--out", str(tmp_path), *METHOD, "--prune.beta", "0.8"]
    done = ssm_train(fit, installed)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "toy-001"
    report = json.loads((folder / "prune_report.json").read_text(encoding="utf-8"))
    assert report["provider"] == "ssm-prune-template 0.3.0"
    weights = load_file(folder / "model.safetensors")
    allowed = [tensor["name"] for tensor in report["tensors"] if tensor["may_be_pruned"]]
    zeros = sum(int((weights[name] == 0).sum()) for name in allowed)
    assert zeros == round(0.6 * sum(weights[name].numel() for name in allowed)) > 0

    # as if it had been killed after its last checkpoint
    (folder / "status.json").write_text('{"state": "running"}', encoding="utf-8")
    before = {p: p.read_bytes() for p in folder.rglob("*.safetensors")}
    for words in (fit[4:], []):  # this process has not installed it
        assert train(*words, "--resume", "auto", out="", code=2) == folder
        (*_, line) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("ssm-train: error: unknown pruner 'decayed-taylor'")
    assert {p: p.read_bytes() for p in folder.rglob("*.safetensors")} == before
    resumed = ssm_train([*fit, "--resume", "auto"], installed)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming {folder}" in resumed.stderr


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


def test_the_templates_own_test_passes(installed: Path) -> None:
    test = TEMPLATE / "tests" / "test_method.py"
    plain = ["-p", "no:cacheprovider", "--import-mode=importlib", "-q", "-c", os.devnull]
    done = call(["-m", "pytest", *plain, str(test)], [installed])
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
