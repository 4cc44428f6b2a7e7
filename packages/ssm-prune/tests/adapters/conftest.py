"""Lets the tests of this folder import its cases; models of ssm-vision where it is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
if find_spec("ssm_vision"):
    # its small models of every family
    sys.path.append(str(Path(__file__).parents[3] / "ssm-vision" / "tests" / "models"))
else:
    collect_ignore_glob = ["test_vision_*.py"]
