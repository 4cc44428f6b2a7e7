#!/usr/bin/env bash
# Run the tests of the CUDA kernels in the simulator under the address, alignment and undefined-behaviour sanitizers: what
# compute-sanitizer's memcheck finds on a GPU, reads and writes beyond a tensor and vector accesses that are not aligned.
#   tools/check_simulator.sh [PYTEST ARGUMENTS...]       BUILD=folder keeps the build
# Linux; works on a copy of the package; the environment needs GCC and everything that `make setup` installs.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${VENV:-.venv}/bin/python")
export PATH="$(dirname "$python"):$PATH"

if [[ -n ${BUILD:-} ]]; then
    work=$(mkdir -p "$BUILD" && realpath "$BUILD")
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi

# pointer-overflow: kernels find the address of an element of a tensor that is absent or empty, and do not use it.
flags="-O1 -g1 -fsanitize=address,undefined -fno-sanitize=null,object-size,vptr,pointer-overflow -fno-sanitize-recover=all"
cmake -S packages/ssm-kernels -B "$work/build" "${generator[@]+"${generator[@]}"}" -DCMAKE_BUILD_TYPE= \
    -DSSM_KERNELS_CUDA=off -DSSM_KERNELS_SIMULATOR=ON -DCMAKE_CXX_FLAGS="$flags" \
    -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >"$work/cmake.log" ||
    { cat "$work/cmake.log" >&2; exit 1; }
cmake --build "$work/build" --parallel "$(getconf _NPROCESSORS_ONLN)" --target _simulated >"$work/build.log" ||
    { cat "$work/build.log" >&2; exit 1; }

# A copy of the package that is found before the installed one: that one is editable, with a finder of its own.
rm -rf "$work/copy" "$work/venv"
mkdir "$work/copy"
cp -r packages/ssm-kernels/src/ssm_kernels "$work/copy"
native=$("$python" -c 'import importlib.util as u; print(u.find_spec("ssm_kernels._native").origin)')
cp "$native" "$work/copy/ssm_kernels/"
cp "$work"/build/csrc/cuda/simulator/_simulated*.so "$work/copy/ssm_kernels/"
"$python" -m venv --without-pip "$work/venv"
printf '%s\n' "$work/copy" "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    >"$(echo "$work"/venv/lib/python3*/site-packages)/copy.pth"

# Leaks are Python's own; symbols of torch take minutes to read: addr2line finds the line of an address that is printed.
libraries="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:symbolize=0 UBSAN_OPTIONS=print_stacktrace=0 PYTHONMALLOC=malloc OMP_NUM_THREADS=1
tests=("$@")
if ((${#tests[@]} == 0)); then tests=(packages/ssm-kernels/tests/test_cuda_*.py); fi
# -s: what a sanitizer says before it ends the process must not be captured.
LD_PRELOAD=$libraries "$work/venv/bin/python" -m pytest -q -s -k "forwards" "${tests[@]}"
