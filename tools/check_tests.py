"""Fail when a test cannot fail: every test function must assert something.

An assertion is an `assert` of something not constant, `pytest.raises` or `pytest.warns`, an
assertion of a library (`torch.testing.assert_close`, `opcheck`, ...), or a call of a helper in the
same package's tests that asserts.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RAISING = {"raises", "warns", "deprecated_call", "opcheck", "gradcheck", "gradgradcheck"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_in(source: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield node


def asserts(function: Function, helpers: dict[str, bool]) -> bool:
    """Whether `function` asserts; `helpers` says of each function of the tests whether it does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if helpers.get(name, name in RAISING or name.startswith("assert_")):
                return True
    return False


def helpers_in(sources: Iterable[str]) -> dict[str, bool]:
    """Name of every function in `sources`, the tests of one package -> whether it asserts."""
    functions: dict[str, list[Function]] = defaultdict(list)
    for source in sources:
        for function in functions_in(source):
            functions[function.name].append(function)
    helpers = dict.fromkeys(functions, False)
    while True:  # a helper may assert through another helper
        # A name used twice counts only if every function of that name asserts.
        found = {name: all(asserts(f, helpers) for f in same) for name, same in functions.items()}
        if found == helpers:
            return helpers
        helpers = found


def tests_without_assertion(sources: dict[Path, str]) -> Iterator[tuple[Path, Function]]:
    helpers = helpers_in(sources.values())
    for path, source in sources.items():
        for function in functions_in(source):
            if function.name.startswith("test_") and not asserts(function, helpers):
                yield path, function


def main() -> int:
    n_files = n_found = 0
    for package in [*sorted(ROOT.glob("packages/*")), ROOT / "tools"]:
        sources = {path: path.read_text("utf-8") for path in sorted(package.glob("tests/**/*.py"))}
        n_files += len(sources)
        for path, test in tests_without_assertion(sources):
            n_found += 1
            place = f"{path.relative_to(ROOT)}:{test.lineno}"
            print(f"{place}: {test.name} asserts nothing: add an assertion")
    print(f"{n_files} test files, {n_found} tests without an assertion")
    return 1 if n_found or not n_files else 0


if __name__ == "__main__":
    sys.exit(main())
