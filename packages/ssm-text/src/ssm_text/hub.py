"""Files of language models from the Hugging Face hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ssm_core.errors import CheckpointError
from ssm_text.weight_files import CONFIG, INDEX, WEIGHTS

#: organisation and name of a repository
_ID = re.compile(r"[\w.-]+/[\w.-]+")


def fetch(repository: str, revision: str | None = None) -> Path:
    """Bring the configuration and the weights of a language model here, and return their folder.

    Files that are in the cache of huggingface_hub already are not fetched again; without a network
    they are what is read.

    Raises:
        CheckpointError: no id of a repository, huggingface_hub is not installed, the hub cannot be
            reached and the cache does not have it, or the repository has no weights.
    """
    # a folder whose name was mistyped shall not be looked for on the network
    if _ID.fullmatch(repository) is None or Path(repository).parent.is_dir():
        raise CheckpointError(
            f"{repository}: no such folder, and no id of the Hugging Face hub (organisation/name)"
        )
    try:
        import huggingface_hub as hub
    except ImportError:
        raise CheckpointError(
            f"{repository}: no such folder, and the Hugging Face hub needs "
            "`pip install 'ssm-text[hub]'`"
        ) from None
    try:
        return _downloaded(hub, repository, revision)
    except CheckpointError:
        raise
    except Exception as error:  # its kinds of error differ between versions and ways of transport
        if (folder := _cached(hub, repository, revision)) is not None:
            return folder
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{repository}: no such folder, and it cannot be had from the Hugging Face hub: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _downloaded(hub: Any, repository: str, revision: str | None) -> Path:
    there = set(hub.list_repo_files(repository, revision=revision))
    chosen = next((name for name in WEIGHTS if name in there), None)
    if chosen is None:
        raise CheckpointError(
            f"{repository}: has none of {', '.join(WEIGHTS)}, expected a language model"
        )
    paths = [
        Path(hub.hf_hub_download(repository, name, revision=revision)) for name in (CONFIG, chosen)
    ]
    for name in _shards(paths[1]):
        hub.hf_hub_download(repository, name, revision=revision)
    return paths[0].parent


def _cached(hub: Any, repository: str, revision: str | None) -> Path | None:
    """The folder of what was fetched before; None if a file is missing."""

    def here(name: str) -> Path | None:
        path = hub.try_to_load_from_cache(repository, name, revision=revision)
        return Path(path) if isinstance(path, str) else None

    config = here(CONFIG)
    weights = next((path for name in WEIGHTS if (path := here(name))), None)
    if config is None or weights is None or not all(here(name) for name in _shards(weights)):
        return None
    return config.parent


def _shards(weights: Path) -> list[str]:
    """Names of the further files that an index names; none for other files."""
    if not weights.name.endswith(INDEX):
        return []
    return sorted(set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values()))
