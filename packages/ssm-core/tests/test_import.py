import subprocess
import sys

HEAVY = ["lightning_fabric", "jsonargparse", "torchmetrics", "torchdata", "rich", "tensorboard"]


def test_import_ssm_core_leaves_the_training_libraries_alone():
    code = f"import sys, ssm_core; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
