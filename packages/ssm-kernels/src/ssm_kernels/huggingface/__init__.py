"""One call makes the Mamba and Mamba-2 models of Hugging Face's transformers run on our operators.

from ssm_kernels import huggingface

huggingface.accelerate(model)   # this model; accelerate() for all models of transformers
huggingface.restore()           # as it was

Works with transformers 5.16 to 5.x, in which every such model calls the same few functions; other
versions raise. transformers is not needed to import this package.
"""

from __future__ import annotations

from .patch import accelerate, restore

__all__ = ["accelerate", "restore"]
