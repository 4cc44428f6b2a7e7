"""Where and with what the figures were taken."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ssm_core.train.folder import processor, versions
from ssm_kernels import native

PEER_PACKAGES = ("mambapy", "transformers", "mamba-ssm", "matplotlib")


def description(
    arguments: list[str],
    smoke: bool,
    target: str = "bench",
    peers: Iterable[str] = PEER_PACKAGES,
) -> dict[str, Any]:
    """Machine, versions, settings and command, for the JSON file; `target` is that of make."""
    build = native.build_info()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor() + _generation(),
        "cores": os.cpu_count(),
        "memory_GiB": round(memory / 2**30, 1),
        "level3_MiB": last_level_cache() / 2**20,
        "load": os.getloadavg()[0],  # above 0 at the start: others were working, too
        "threads": torch.get_num_threads(),
        "isa": native.isa(),
        "smoke": smoke,
        "system": platform.platform(),
        "compiler": build["compiler"],
        "parallel": build["parallel"],
        "versions": versions() | _versions_of(peers),
        "command": shlex.join(["make", target, f"ARGS={shlex.join(arguments)}"]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def last_level_cache() -> int:
    """Bytes of the third-level cache, 0 where the system does not tell."""
    if "SC_LEVEL3_CACHE_SIZE" not in getattr(os, "sysconf_names", {}):
        return 0
    return max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), 0)


def _generation() -> str:
    """Family and model of the processor, which the name of a virtual one leaves out."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    if "cpu family" not in found:
        return ""
    return f", family {found['cpu family']} model {found.get('model', '?')}"


def _versions_of(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
