#!/usr/bin/env bash
# Remove what the other targets make: the environment, builds and caches. runs/ and data/ stay.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf "${VENV:-.venv}" build packages/*/build packages/*/dist .ruff_cache .hypothesis
rm -rf packages/*/.hypothesis
find packages tools -type d -name __pycache__ -prune -exec rm -rf {} +
