"""Checkpoints: one safetensors file, written atomically; reading one never runs code.

A state is any nesting of dicts, lists and tuples over tensors and JSON values. Tensors go into the
file as tensors; the nesting goes into its metadata as JSON, each tensor as a reference by name.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ssm_core.errors import CheckpointError
from ssm_core.sizes import sizes_metadata

FORMAT = "ssm-state-1"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a nested state to `path`, all or nothing.

    Raises:
        TypeError: a value that is neither a tensor nor JSON; names its place.
    """
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, "state", tensors, {})
    _write(path, tensors, {"format": FORMAT, "tree": json.dumps(tree)})


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; tensors arrive on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or not a state.
    """
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a training state (format {metadata.get('format')!r})")
    try:
        return _unpack(json.loads(metadata["tree"]), tensors)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged, its index does not fit: {error}") from error


def save_weights(path: Path, module: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a model's weights (tied ones once) with text metadata, all or nothing.

    The metadata also hold the sizes of what `ssm_core.sizes` made smaller.
    """
    tensors: dict[str, Tensor] = {}
    tree = _pack(dict(module.state_dict()), "", tensors, {})
    ties = {key: node["tensor"] for key, node in tree.items() if node["tensor"] != key}
    _write(path, tensors, {**metadata, **sizes_metadata(module), "ties": json.dumps(ties)})


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a weights file: (state dict with ties restored, metadata)."""
    tensors, metadata = _read(path)
    for key, target in json.loads(metadata.pop("ties", "{}")).items():
        tensors[key] = tensors[target]
    return tensors, metadata


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write(temporary path)` make a file, sync it and rename it to `path`.

    A kill at any moment leaves the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())  # temporary files are made for their owner's eyes only
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _umask() -> int:
    mask = os.umask(0o022)  # reading it means setting it
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder for syncing
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            return {key: file.get_tensor(key) for key in keys}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: damaged or not a safetensors file ({reason}); nothing was changed, "
            "remove the file or restore a copy of it"
        ) from error


def _pack(value: Any, place: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """JSON for `value`; its tensors are added to `tensors`, shared memory only once."""
    if isinstance(value, Tensor):
        identity = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() == 0 or identity not in seen:
            name = place or "tensor"
            # a copy: safetensors refuses views that overlap, and the model goes on training
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
            seen[identity] = name
            return {"tensor": name}
        return {"tensor": seen[identity]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and not {"tensor", "items"} & set(value):
            return {k: _pack(v, _join(place, k), tensors, seen) for k, v in value.items()}
        pairs = [[k, _pack(v, _join(place, str(k)), tensors, seen)] for k, v in value.items()]
        return {"items": pairs}
    if isinstance(value, (list, tuple)):
        return [_pack(v, _join(place, str(i)), tensors, seen) for i, v in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"checkpoint: {place} is a {type(value).__name__}, expected a tensor or JSON")


def _unpack(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if set(node) == {"tensor"}:
            return tensors[node["tensor"]]
        if set(node) == {"items"}:
            return {key: _unpack(value, tensors) for key, value in node["items"]}
        return {key: _unpack(value, tensors) for key, value in node.items()}
    if isinstance(node, list):
        return [_unpack(value, tensors) for value in node]
    return node


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
