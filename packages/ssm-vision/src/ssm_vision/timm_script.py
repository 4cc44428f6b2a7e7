"""Run a script of timm with our models: `python -m ssm_vision.timm_script train.py ARGUMENTS`.

timm's train.py also takes `--device-modules ssm_vision`, which has the same effect; validate.py,
inference.py, benchmark.py and others have no such option.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from ssm_core.errors import ConfigError, SsmError


def main(words: list[str]) -> None:
    """Run the script `words[0]` with the arguments that follow, as Python itself would.

    Raises:
        ConfigError: there is no such script.
    """
    if not words or not Path(words[0]).is_file():
        script = repr(words[0]) if words else "none"
        raise ConfigError(f"timm_script: the script is {script}, expected a file such as train.py")
    sys.argv[:] = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SsmError as error:
        sys.exit(f"error: {error}")
