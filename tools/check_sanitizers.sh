#!/usr/bin/env bash
# Run the C++ tests of ssm-kernels under the sanitizers: addresses and undefined behaviour with every kernel, data races
# with the thread pool.  Needs CMake and a compiler that comes with the sanitizers' libraries; neither Python nor torch.
#   tools/check_sanitizers.sh           CXX=clang++ chooses the compiler, BUILD=folder keeps the builds
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${VENV:-.venv}
[[ $environment == /* ]] || environment=$PWD/$environment
export PATH="$PATH:$environment/bin" # CMake and Ninja, where only the environment has them
compiler=${CXX:-c++}
command -v cmake >/dev/null || { echo "error: no cmake; run 'make setup' or install it" >&2; exit 1; }

if [[ -n ${BUILD:-} ]]; then
    work=$BUILD
    mkdir -p "$work"
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi

# check NAME FLAGS TEST... : build the tests with these flags and run them.
check() {
    local name=$1 flags=$2 build=$work/$1
    shift 2
    echo "==> $name ($("$compiler" --version | head -1))"
    # shellcheck disable=SC2086  # flags are several words
    if ! echo 'int main() { return 0; }' | "$compiler" $flags -x c++ -o "$work/probe" - 2>"$work/probe.log"; then
        echo "error: $compiler cannot link $flags; install its sanitizer libraries ($(tail -1 "$work/probe.log"))" >&2
        exit 1
    fi
    # Fewer cases than without sanitizers; no unrolling and light optimisation: more takes minutes to compile.
    # GCC then finds its own AVX-512 header uninitialised.
    cmake -S packages/ssm-kernels -B "$build" "${generator[@]+"${generator[@]}"}" \
        -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE= -DSSM_KERNELS_TESTS=ON \
        -DCMAKE_CXX_FLAGS="-Og -g1 -Wno-uninitialized -fno-omit-frame-pointer -DSSM_NO_UNROLL $flags" \
        -DSSM_TESTS_SCAN_CASES=300 -DSSM_TESTS_CONV_CASES=40 -DSSM_TESTS_FLOAT_DISTANCE=40009 >"$work/cmake.log" ||
        { cat "$work/cmake.log" >&2; exit 1; }
    cmake --build "$build" --parallel "$(getconf _NPROCESSORS_ONLN)" --target "${@/#/test_}" >"$work/build.log" ||
        { cat "$work/build.log" >&2; exit 1; }
    (cd "$build" && ctest --output-on-failure -R "^($(IFS='|' && echo "$*"))\$")
}

# Checks left out find nothing that AddressSanitizer does not find, and take as long to compile as all the others.
check addresses "-fsanitize=address,undefined -fno-sanitize=null,object-size,vptr -fno-sanitize-recover=all" \
    parallel vectors selective_scan ssd_scan causal_conv1d simulator
export TSAN_OPTIONS="halt_on_error=1 die_after_fork=0 ${TSAN_OPTIONS:-}"
check threads "-fsanitize=thread" parallel
echo "the sanitizers found nothing"
