#!/usr/bin/env bash
# Print the interpreter to build on: $PYTHON if it is set, else the newest one that can do it.
# An interpreter can do it when it is Python >= 3.10 and has venv, pip's installer and its C headers.
set -euo pipefail

# Prints nothing for a suitable interpreter, else one line that says what it lacks.
lacks() {
    "$1" - 2>/dev/null <<'PROBE' || echo "does not run"
import importlib.util, os, sys, sysconfig
if sys.version_info < (3, 10):
    print("is Python %d.%d, 3.10 or newer is needed" % sys.version_info[:2])
elif any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
    print("lacks the venv module (Debian, Ubuntu: apt install python3-venv)")
elif not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("lacks its C headers (Debian, Ubuntu: apt install python3-dev)")
PROBE
}

if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
else
    candidates=(python3.13 python3.12 python3.11 python3.10 python3 python)
fi

reasons=""
for candidate in "${candidates[@]}"; do
    if [[ -z $(command -v "$candidate") ]]; then
        [[ -z ${PYTHON:-} ]] || reasons="; $candidate is not found"
        continue
    fi
    reason=$(lacks "$candidate")
    if [[ -z $reason ]]; then
        echo "$candidate"
        exit 0
    fi
    reasons+="; $candidate $reason"
done
echo "error: no suitable Python${reasons:-; none is found}; name one with PYTHON=..." >&2
exit 1
