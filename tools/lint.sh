#!/usr/bin/env bash
# Run every static check, also after one has failed; fails if any did.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
failed=""

check() {
    local name=$1
    shift
    echo "==> $name"
    "$@" || failed+=" $name"
}

check ruff "$bin/ruff" check .
check format "$bin/ruff" format --check .
check mypy "$bin/mypy" packages/*/src tools
check imports "$bin/lint-imports" --cache-dir build/import-linter
check assertions "$bin/python" tools/check_tests.py
if [[ -n $failed ]]; then
    echo "error: these checks failed:$failed" >&2
    exit 1
fi
