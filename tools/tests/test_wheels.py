"""What the wheels say of themselves, and the tools that check and try them. Builds nothing."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

import check_wheels
import pytest
import tomlkit
import torch_matrix

ROOT = Path(__file__).parents[2]
PACKAGES = ("ssm-kernels", "ssm-core", "ssm-vision", "ssm-text", "ssm-prune")


def manifest(package: str) -> Any:
    text = (ROOT / "packages" / package / "pyproject.toml").read_text()
    return tomlkit.parse(text).unwrap()


@pytest.mark.parametrize("package", PACKAGES)
def test_metadata(package: str) -> None:
    project = manifest(package)["project"]
    folder = ROOT / "packages" / package
    assert project["name"] == package
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert project["readme"] == "README.md"
    assert (folder / "README.md").read_text().startswith(f"# {package}\n")
    assert project["requires-python"] == ">=3.10"
    assert (folder / "src" / package.replace("-", "_") / "py.typed").exists()
    for url in project.get("urls", {}).values():
        assert url.startswith("https://"), url


@pytest.mark.parametrize("package", PACKAGES)
def test_versions_of_our_own_fit_together(package: str) -> None:
    dependencies = manifest(package)["project"]["dependencies"]
    assert "torch>=2.6" in dependencies
    for entry in dependencies:
        if match := re.fullmatch(r"(ssm-\w+)>=(\d+\.\d+),<(\d+\.\d+)", entry):
            version = manifest(match[1])["project"]["version"]
            numbers, least, limit = (
                tuple(map(int, text.split(".")[:2])) for text in (version, match[2], match[3])
            )
            assert least <= numbers < limit, entry
        else:
            assert not entry.startswith("ssm-"), entry


@pytest.mark.parametrize("package", PACKAGES)
def test_entry_points_exist(package: str) -> None:
    project = manifest(package)["project"]
    groups = {"console_scripts": project.get("scripts", {}), **project.get("entry-points", {})}
    for group, entries in groups.items():
        for name, value in entries.items():
            assert importlib.metadata.EntryPoint(name, value, group).load() is not None


@pytest.mark.parametrize("package", PACKAGES[1:])
def test_plain_packages_are_built_by_hatchling_from_src(package: str) -> None:
    made = manifest(package)
    assert made["build-system"]["build-backend"] == "hatchling.build"
    wheel = made["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": [f"src/{package.replace('-', '_')}"]}


def test_kernels_are_built_without_torch_and_without_what_lies_around() -> None:
    made = manifest("ssm-kernels")
    names = {re.split("[<>=]", entry)[0] for entry in made["build-system"]["requires"]}
    assert names == {"scikit-build-core", "pybind11"}
    assert {"build", "*.so", "*.pyd"} <= set(made["tool"]["scikit-build"]["sdist"]["exclude"])


def test_published_wheels_are_tried_and_have_no_cuda() -> None:
    how = manifest("ssm-kernels")["tool"]["cibuildwheel"]
    assert how["build"][0] == "cp310-*"
    assert how["environment"] == {"SSM_KERNELS_CUDA": "off"}
    command = how["test-command"].split()
    assert command[0] == "python"
    assert Path(command[1].format(package=ROOT / "packages" / "ssm-kernels")).exists()


FILES = {"LICENSE", "pyproject.toml", "src/p/__init__.py", "src/p/py.typed", "src/p/r.yaml"}
WHEEL = {"p/__init__.py", "p/py.typed", "p/r.yaml", "p-1.dist-info/licenses/LICENSE"}


def test_a_whole_wheel_has_no_problems() -> None:
    assert check_wheels.wheel_problems(FILES, WHEEL) == []
    kernels = {"src/ssm_kernels/__init__.py", "src/ssm_kernels/py.typed"}
    members = {"ssm_kernels/__init__.py", "ssm_kernels/py.typed", "x.dist-info/licenses/LICENSE"}
    assert check_wheels.wheel_problems(kernels, members) == ["lacks the native library"]
    library = "ssm_kernels/_native.cpython-311-x86_64-linux-gnu.so"
    assert check_wheels.wheel_problems(kernels, {*members, library}) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"p/r.yaml"}, "lacks p/r.yaml"),
        ({"p-1.dist-info/licenses/LICENSE"}, "lacks the licence"),
        ({"p/left_over.py"}, "has p/left_over.py, which the repository has not"),
    ],
)
def test_what_is_wrong_with_a_wheel_is_found(change: set[str], problem: str) -> None:
    assert check_wheels.wheel_problems(FILES, WHEEL ^ change) == [problem]


def test_what_is_wrong_with_a_source_distribution_is_found() -> None:
    members = {f"p-1/{name}" for name in (*FILES, "PKG-INFO")}
    assert check_wheels.sdist_problems(FILES, members) == []
    found = check_wheels.sdist_problems(FILES, (members | {"p-1/x.so"}) - {"p-1/LICENSE"})
    assert found == ["lacks LICENSE", "has x.so, which the repository has not"]


def row(**changes: Any) -> torch_matrix.Row:
    plain = {"torch": "2.6.0", "python": "3.11.7", "passed": 3, "failed": 0, "skipped": 1}
    return torch_matrix.Row(**{**plain, "seconds": 1.0, **changes})


def test_a_row_is_good_when_something_passed_and_nothing_failed() -> None:
    assert row().good
    assert not row(failed=1).good
    assert not row(passed=0).good


def test_the_counts_are_those_of_pytest(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    suite = '<testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="0.1"/>'
    report.write_text(f"<testsuites>{suite}</testsuites>")
    assert torch_matrix.counts(report) == (4, 3, 3)


def test_the_oldest_torch_of_the_matrix_is_the_oldest_supported() -> None:
    oldest, *_, newest = torch_matrix.VERSIONS
    dependencies = manifest("ssm-kernels")["project"]["dependencies"]
    assert f"torch>={oldest.removesuffix('.0')}" in dependencies
    lines = (ROOT / "tools/constraints.txt").read_text().splitlines()
    assert any(line.startswith(f"torch=={newest}") for line in lines)
    assert f"torch_matrix.py --versions {oldest} " in (ROOT / ".ci/run").read_text()


def test_every_tool_of_the_matrix_is_pinned_and_every_quick_test_exists() -> None:
    pinned = {line.split("==")[0] for line in torch_matrix.pins()}
    assert pinned == set(torch_matrix.TOOLS)
    assert all((torch_matrix.KERNELS / "tests" / name).exists() for name in torch_matrix.QUICK)


def test_the_matrix_goes_through_all_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With environments that stand already and installing and testing left out."""
    rows = {"1.0": row(torch="1.0"), "2.0": row(torch="2.0", failed=2)}
    for version in rows:
        (tmp_path / f"torch-{version}").mkdir()
        (tmp_path / f"torch-{version}" / "complete").touch()

    def try_wheel(python: Path, *_: object) -> torch_matrix.Row:
        return rows[python.parts[-3].removeprefix("torch-")]

    monkeypatch.setattr(torch_matrix, "try_wheel", try_wheel)
    out = tmp_path / "table.json"
    words = ["--wheel", "some.whl", "--environments", str(tmp_path), "--json", str(out)]
    assert torch_matrix.main([*words, "--versions", "1.0"]) == 0
    assert torch_matrix.main([*words, "--versions", "1.0", "2.0"]) == 1
    assert "| 2.0 | 3.11.7 | 3 | 2 | 1 | 1 |" in capsys.readouterr().out
    assert [entry["failed"] for entry in json.loads(out.read_text())] == [0, 2]


def test_a_step_that_fails_shows_its_output() -> None:
    with pytest.raises(torch_matrix.StepError, match=r"no such luck\nthis failed: "):
        torch_matrix.run(sys.executable, "-c", "import sys; sys.exit('no such luck')")
