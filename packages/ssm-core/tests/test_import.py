import subprocess
import sys

HEAVY = [
    *("jsonargparse", "lightning_fabric", "rich", "sympy", "tensorboard", "torchdata"),
    "torchmetrics",
]


def test_import_ssm_core_brings_nothing_heavy_beside_torch():
    code = "import sys, torch; before = {*sys.modules}; import ssm_core; "
    code += f"print([m for m in {HEAVY} if m in sys.modules and m not in before])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
