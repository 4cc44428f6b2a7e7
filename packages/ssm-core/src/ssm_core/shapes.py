"""The one alphabet of shapes, and the named tensor types of every annotation.

Axes are lower case, matrices upper case as in the papers, so `B` is never the batch:

    b  batch            l  steps (sequence length)      d  channels of the model
    n  states           h  heads                        p  channels of one head
    k  kernel width     c  image channels               y x  rows and columns of an image
    E  d_inner = expand * d, the width inside a Mamba mixer
    R  dt_rank, the rank of the projection that makes the step size

Tensors between layers are (b, l, d). The types below are `Annotated[Tensor, "axes"]`: a type
checker sees a `Tensor`, a reader sees the shape. Nothing is checked at run time by the annotation
itself; the layers check their inputs where a user can get them wrong.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from torch import Tensor

Activations: TypeAlias = Annotated[Tensor, "b l d"]
"""What flows between layers."""
OneStep: TypeAlias = Annotated[Tensor, "b d"]
"""One step of `Activations`."""
Inner: TypeAlias = Annotated[Tensor, "b l E"]
"""Activations inside a Mamba mixer."""
InnerStep: TypeAlias = Annotated[Tensor, "b E"]
"""One step of `Inner`."""
StepSizes: TypeAlias = Annotated[Tensor, "b l E"]
"""Step sizes Delta > 0, unit: steps."""
HeadStepSizes: TypeAlias = Annotated[Tensor, "b l h"]
"""Step sizes Delta > 0 of heads, unit: steps."""

Offsets: TypeAlias = Annotated[Tensor, "sequences+1"]
"""Where packed sequences begin and end, [0, .., l], int32 or int64."""
StepMask: TypeAlias = Annotated[Tensor, "b l"]
"""True on real steps, False on padding."""

ConvState: TypeAlias = Annotated[Tensor, "b E k-1"]
"""The last k - 1 inputs of a causal convolution, oldest first."""
ScanState: TypeAlias = Annotated[Tensor, "b E n"]
"""State of a selective scan."""
DiagonalState: TypeAlias = Annotated[Tensor, "b h n"]
"""State of S4 and S4D, complex (here h counts features)."""
ConvolutionKernel: TypeAlias = Annotated[Tensor, "c h l"]
"""Kernels of S4 and S4D (here c counts their outputs per feature)."""
SystemState: TypeAlias = Annotated[Tensor, "b p"]
"""State of S5, complex, one for all features (here p counts states)."""
HeadScanState: TypeAlias = Annotated[Tensor, "b h p n"]
"""State of an SSD scan: a matrix per head."""
HiddenState: TypeAlias = Annotated[Tensor, "b h"]
"""State of a vanilla RNN (here h counts hidden units)."""
HeadCache: TypeAlias = Annotated[Tensor, "b h l p"]
"""Keys or values of attention, all steps seen so far."""
