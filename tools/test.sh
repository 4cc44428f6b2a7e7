#!/usr/bin/env bash
# Run the tests of the named packages (default: all, and those of tools/), each with its own coverage.
#   tools/test.sh [PACKAGE...] [-- PYTEST ARGUMENTS...]
# A package is measured by its own tests alone; a failing one does not stop the others.
# Tests run in one process per core; `-- -n 0` runs them in this one, for a debugger.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${VENV:-.venv}/bin/python
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

packages=()
while (($#)) && [[ $1 != -- ]]; do packages+=("$1") && shift; done
if (($#)); then shift; fi
if ((${#packages[@]} == 0)); then
    packages=(ssm-kernels ssm-core ssm-vision ssm-text ssm-prune tools)
fi

mkdir -p build
failed=0
summary=""
for package in "${packages[@]}"; do
    folder=packages/$package measured=${package//-/_}
    if [[ $package == tools ]]; then folder=tools measured=bench.cuda; fi
    if [[ ! -d $folder/tests ]]; then
        echo "error: no package $package; there are: $(cd packages && echo *) tools" >&2
        exit 2
    fi
    echo "==> $package"
    export COVERAGE_FILE=build/coverage.$package
    rm -f "$COVERAGE_FILE"
    result=passed
    PYTHONPATH=tools "$python" -m pytest "$folder/tests" --cov="$measured" \
        -n auto --maxprocesses 8 --dist worksteal "$@" || result=FAILED
    [[ $result == passed ]] || failed=1
    covered=$("$python" -m coverage report --format=total 2>/dev/null) || covered="no data"
    summary+=$(printf '  %-12s %-7s coverage %% %s' "$package" "$result" "$covered")$'\n'
done
printf '==> Summary\n%s' "$summary"
exit "$failed"
