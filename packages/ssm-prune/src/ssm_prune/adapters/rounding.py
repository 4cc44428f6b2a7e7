"""Numbers of units that are worth keeping."""

from __future__ import annotations

#: fills the vectors of CPUs and the tiles of GPUs; the causal convolution of others asks for it
CHANNELS = 8
