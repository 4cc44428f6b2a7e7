"""Language models in folders and on the Hugging Face hub; reading one never runs code.

A folder holds config.json and the weights: model.safetensors, or pytorch_model.bin (read with
`weights_only=True`), or either of them in shards with an index.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssm_core.errors import CheckpointError
from ssm_core.official.tensors import Tensors
from ssm_text.mamba_lm import MambaLM
from ssm_text.official import build, to_official
from ssm_text.official.config import Format
from ssm_text.official.fill import Placement
from ssm_text.weight_files import CONFIG, INDEX, WEIGHTS


def load(
    source: str | Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    revision: str | None = None,
) -> MambaLM:
    """Read a language model, in evaluation mode.

    Args:
        source: a folder, or the id of a repository of the Hugging Face hub such as
            "state-spaces/mamba-130m" or "state-spaces/mamba-130m-hf" (extra `hub`). A folder comes
            first.
        dtype: type of the weights; None: that of the file. What decides over decays (A_log, D,
            step-size biases) stays float32 where `dtype` is a half precision.
        device: where the model goes.
        revision: branch, tag or commit of the repository.
    Raises:
        CheckpointError: nothing is there, a file is missing or damaged, reading it would run code,
            or the tensors do not fit the configuration: one line with all of them.
        ConfigError: a configuration that this model cannot have.

    Cost: reading the files. The tensors of files are mapped, not read, while they are copied; only
    PyTorch files of before 2020 are in memory twice.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        from ssm_text.hub import fetch

        folder = fetch(str(source), revision)
    config = _read_json(_existing(folder, (CONFIG,)))
    tensors = read_weights(folder)
    # copied, or what stays as it was would keep the whole file mapped
    return build(tensors, config, Placement(dtype, device, copy=True))


def save(model: MambaLM, folder: Path, format: Format = "official") -> None:
    """Write config.json and model.safetensors, each all or nothing; a tied head is not repeated.

    Args:
        format: names of tensors and options: "official" (state-spaces/mamba) or "huggingface",
            which transformers reads.
    Raises:
        ConfigError: a model that the format cannot express.
    """
    from safetensors.torch import save_file

    from ssm_core.train.checkpoint import write_atomically, write_text

    tensors, config = to_official(model, format)
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    metadata = {"format": "pt"}  # transformers asks for it
    write_atomically(folder / WEIGHTS[0], lambda part: save_file(tensors, part, metadata))
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def read_weights(folder: Path) -> Tensors:
    """Read the tensors of a folder by name; they arrive on the CPU.

    Raises:
        CheckpointError: there are none, or a file is missing or damaged.
    """
    path = _existing(folder, WEIGHTS)
    if not path.name.endswith(INDEX):
        return _read_file(path)
    places = _read_json(path).get("weight_map")
    if not isinstance(places, dict):
        raise CheckpointError(f"{path}: has no weight_map, expected an index of shards")
    shards = {name: _existing(folder, (name,)) for name in sorted(set(places.values()))}
    tensors: Tensors = {}
    for shard in shards.values():
        tensors |= _read_file(shard)
    return tensors


def _existing(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: has no {' or '.join(names)}, expected a folder of a model")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged, expected JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected an object")
    return content


def _read_file(path: Path) -> Tensors:
    read: Callable[[Path], Tensors]
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    return read(path)


def _read_safetensors(path: Path) -> Tensors:
    from ssm_core.train.checkpoint import load_weights

    return load_weights(path)[0]


def _read_pickle(path: Path) -> Tensors:
    zipped = _is_zip(path)
    try:
        # only files of the present format can be mapped instead of read
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # whatever a damaged file makes of pickle, zip and torch
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: damaged, or reading it would run code ({reason}); expected a PyTorch file "
            "of tensors alone"
        ) from error
    wrong = not isinstance(content, dict) or next(
        (name for name, value in content.items() if not isinstance(value, Tensor)), None
    )
    if wrong:
        raise CheckpointError(f"{path}: holds more than tensors, expected a dict of them by name")
    return dict(content)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"
