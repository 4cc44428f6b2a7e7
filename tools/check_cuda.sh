#!/usr/bin/env bash
# On a machine with a GPU: build ssm-kernels with CUDA, run the kernel tests on the GPU, tiny sizes three times and under
# compute-sanitizer.  Needs no network: the environment has torch, pytest, hypothesis and the build tools already.
#   tools/check_cuda.sh                 VENV=folder is the environment, BUILD=no takes what is installed in it
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-${VENV:-.venv}/bin/python}
export PATH="$PATH:/usr/local/cuda/bin"
export PYTHONPATH=tools

section() { printf '\n==> %s (%d s)\n' "$1" "$SECONDS"; }
need() { command -v "$1" >/dev/null || { echo "error: no $1; $2" >&2; exit 1; }; }
need nvidia-smi "this needs an NVIDIA GPU and its driver"
need nvcc "install the CUDA toolkit or put its bin folder on the PATH"
need compute-sanitizer "it comes with the CUDA toolkit (cuda-sanitizer)"
need "$python" "make an environment with 'make setup', or name one with VENV or PYTHON"

if [[ ${BUILD:-yes} != no ]]; then
    section "Build"
    architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d '. ')
    "$python" -m pip --disable-pip-version-check install --quiet --no-build-isolation --no-deps \
        --config-settings=cmake.define.SSM_KERNELS_CUDA=on \
        --config-settings=cmake.define.SSM_KERNELS_SIMULATOR=ON \
        --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$architecture-real" \
        --editable packages/ssm-kernels
fi
"$python" -c 'import torch
from ssm_kernels import native
problem = native.cuda_problem()
if problem: raise SystemExit(f"error: {problem}")
print(torch.cuda.get_device_name(), "torch", torch.__version__, native.cuda_info())'

# All of it runs, whatever fails before; the failures are named at the end.
failed=()
check() {
    section "$1"
    "${@:2}" || failed+=("$1")
}
sanitized() { # without torch's cache of memory, which would hide what is read beyond a tensor
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 20 \
        "$python" -m bench.cuda.tiny --only-run
}
check "Tests on the GPU" "$python" -m pytest packages/ssm-kernels/tests -m gpu -q
check "Limits of the machine code" "$python" -m pytest packages/ssm-kernels/tests/test_cuda_resources.py -q
check "Tiny sizes: errors, three runs with the same bits" "$python" -m bench.cuda.tiny
check "memcheck" sanitized memcheck
check "racecheck" sanitized racecheck
check "synccheck" sanitized synccheck

section "Done"
if ((${#failed[@]})); then
    printf 'error: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "all passed"
