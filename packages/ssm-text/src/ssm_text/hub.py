"""Files of language models from the Hugging Face hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ssm_core.errors import CheckpointError

#: organisation and name of a repository
_ID = re.compile(r"[\w.-]+/[\w.-]+")


def fetch(repository: str, revision: str | None = None) -> Path:
    """Bring the configuration and the weights of a language model here, and return their folder.

    Files that are in the cache of huggingface_hub already are not fetched again.

    Raises:
        CheckpointError: no id of a repository, huggingface_hub is not installed, the hub cannot be
            reached, or the repository has no weights.
    """
    from ssm_text.pretrained import CONFIG, INDEX, WEIGHTS

    if _ID.fullmatch(repository) is None:
        raise CheckpointError(
            f"{repository}: no such folder, and no id of the Hugging Face hub (organisation/name)"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise CheckpointError(
            f"{repository}: no such folder, and the Hugging Face hub needs "
            "`pip install 'ssm-text[hub]'`"
        ) from None
    try:
        there = set(huggingface_hub.list_repo_files(repository, revision=revision))
        chosen = next((name for name in WEIGHTS if name in there), None)
        if chosen is None:
            raise CheckpointError(
                f"{repository}: has none of {', '.join(WEIGHTS)}, expected a language model"
            )
        paths = [
            Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
            for name in (CONFIG, chosen)
        ]
        if chosen.endswith(INDEX):
            shards = json.loads(paths[1].read_text(encoding="utf-8"))["weight_map"].values()
            for name in sorted(set(shards)):
                huggingface_hub.hf_hub_download(repository, name, revision=revision)
    except CheckpointError:
        raise
    except Exception as error:  # its kinds of error differ between versions and ways of transport
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{repository}: no such folder, and it cannot be had from the Hugging Face hub: "
            f"{type(error).__name__}: {reason}"
        ) from error
    return paths[0].parent
