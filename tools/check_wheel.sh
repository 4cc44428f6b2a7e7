#!/usr/bin/env bash
# Build the ssm-kernels wheel once and try that one file under several installations of torch.
#   tools/check_wheel.sh PYTHON...      each an interpreter with its own torch, all of one Python version
# The wheel is installed beside each torch in a temporary folder; where pytest and hypothesis are
# installed, the kernel tests run too, otherwise a short comparison with the reference.
set -euo pipefail
cd "$(dirname "$0")/.."
(($#)) || { echo "error: name at least one Python interpreter with torch" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$1" -m pip wheel --quiet --no-deps --wheel-dir "$work/wheel" packages/ssm-kernels
wheel=$(echo "$work"/wheel/*.whl)
echo "==> $(basename "$wheel"), $(du -h "$wheel" | cut -f1)"

"$1" -m zipfile -e "$wheel" "$work/content"
library=$(echo "$work"/content/ssm_kernels/_native*.so)
needed=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
echo "needs: ${needed//$'\n'/ }"
if grep -qE 'libtorch|libc10|libgomp|libiomp|libomp' <<<"$needed"; then
    echo "error: the wheel is linked to torch or to an OpenMP runtime" >&2
    exit 1
fi

smoke='
import os, torch, ssm_kernels
assert ssm_kernels.__file__.startswith(os.environ["PYTHONPATH"]), (
    f"{ssm_kernels.__file__} is another installation: name an interpreter without ssm-kernels")
torch.manual_seed(0)
u, delta, z = (torch.randn(2, 33, 17, requires_grad=True) for _ in range(3))
A = -torch.rand(17, 5)
B, C = torch.randn(2, 33, 5), torch.randn(2, 33, 5)
results = []
for backend in ("cpu", "reference"):
    y = ssm_kernels.selective_scan(u, delta, A, B, C, z=z, delta_softplus=True, backend=backend)
    results.append((y, *torch.autograd.grad(y.sum(), (u, delta, z))))
for ours, expected in zip(*results):
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
print("native kernels agree with the reference")
'
for python in "$@"; do
    echo "==> $("$python" -c 'import torch, sys; print("torch", torch.__version__, "Python", sys.version.split()[0])')"
    site=$work/site-$RANDOM
    "$python" -m pip install --quiet --no-deps --target "$site" "$wheel"
    PYTHONPATH=$site "$python" -c "$smoke"
    if "$python" -c 'import pytest, hypothesis' 2>/dev/null; then
        PYTHONPATH=$site "$python" -m pytest -q packages/ssm-kernels/tests
    fi
done
