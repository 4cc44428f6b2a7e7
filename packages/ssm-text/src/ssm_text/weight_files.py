"""The names of files in folders and repositories of language models."""

from __future__ import annotations

CONFIG = "config.json"
INDEX = ".index.json"
#: of the weights in a folder, the first that are there
WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
