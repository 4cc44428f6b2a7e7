#!/usr/bin/env bash
# Make or update the virtual environment $VENV (default .venv); the work is done by setup.py.
#   tools/setup.sh [build-tools]        build-tools: CMake, Ninja and the like alone
# An environment that stands is kept unless PYTHON asks for another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
export VENV=${VENV:-.venv}

if [[ -z ${PYTHON:-} ]] && "$VENV/bin/python" -c "" 2>/dev/null; then
    python=$VENV/bin/python
else
    python=$(tools/find_python.sh)
fi
exec "$python" tools/setup.py "$@"
