#!/usr/bin/env bash
# Run the tests of the named packages (default: all, and those of tools/), each with its own coverage.
#   tools/test.sh [PACKAGE...] [-- PYTEST ARGUMENTS...]
# A package is measured by its own tests alone; a failing one does not stop the others. With --no-cov there is nothing
# to tell apart, and all run in one session: its processes import PyTorch once, not once per package.
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

folders=()
for package in "${packages[@]}"; do
    folder=packages/$package
    if [[ $package == tools ]]; then folder=tools; fi
    if [[ ! -d $folder/tests ]]; then
        echo "error: no package $package; there are: $(cd packages && echo *) tools" >&2
        exit 2
    fi
    folders+=("$folder/tests")
done

run() { PYTHONPATH=tools "$python" -m pytest -n auto --maxprocesses 8 --dist worksteal "$@"; }

mkdir -p build
if [[ " $* " == *" --no-cov "* ]]; then
    run "${folders[@]}" "$@"
    exit
fi

failed=0
summary=""
for i in "${!packages[@]}"; do
    package=${packages[i]} measured=${packages[i]//-/_}
    if [[ $package == tools ]]; then measured=bench.cuda; fi
    echo "==> $package"
    export COVERAGE_FILE=build/coverage.$package
    rm -f "$COVERAGE_FILE"
    result=passed
    run "${folders[i]}" --cov="$measured" "$@" || result=FAILED
    [[ $result == passed ]] || failed=1
    covered=$("$python" -m coverage report --format=total 2>/dev/null) || covered="no data"
    summary+=$(printf '  %-12s %-7s coverage %% %s' "$package" "$result" "$covered")$'\n'
done
printf '==> Summary\n%s' "$summary"
exit "$failed"
