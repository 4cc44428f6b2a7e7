"""Runs of several processes: who decides, whether all agree, and which part of a tensor is here.

Processes may have other random numbers, other rounding or a method that looks at their own data.
Masks must be equal all the same, so the first process decides and all compare what they have.
"""

from __future__ import annotations

import io
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ssm_prune.errors import PruneError


class Processes:
    """The processes of a run: this one alone, or those of `torch.distributed`.

    Decisions travel through the CPU, so that a GPU is not made to wait for them. To be made on all
    processes at the same place of the program.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self._group: Any = None
        if dist.is_available() and dist.is_initialized():
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
            if self.size > 1 and dist.get_backend() != "gloo":
                self._group = dist.new_group(backend="gloo")

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes, which all get; of integers in float32."""
        tensor = tensor.detach()
        total = tensor.clone() if tensor.is_floating_point() else tensor.float()
        if self.size == 1:
            return total
        # the group of the run may know GPU tensors only
        group = self._group if total.device.type == "cpu" else None
        dist.all_reduce(total, group=group)
        return total / self.size

    def of_first(self, value: Any) -> Any:
        """What the first process gave: any value that can be pickled; tensors come to the CPU."""
        if self.size == 1:
            return value
        buffer = io.BytesIO()
        if value is not None:  # the usual answer of a method, in every step
            torch.save(value, buffer)
        packed = [buffer.getvalue()]
        dist.broadcast_object_list(packed, src=0, group=self._group)
        if not packed[0]:
            return None
        # pickled by this program, in this run
        return torch.load(io.BytesIO(packed[0]), map_location="cpu", weights_only=False)

    def check_equal(self, number: int, what: str) -> None:
        """Compare a 64-bit number, such as a hash, over all processes.

        Raises:
            PruneError: on every process; names those that differ from the first.
        """
        if self.size == 1:
            return
        mine = torch.tensor([number])
        numbers = [torch.zeros_like(mine) for _ in range(self.size)]
        dist.all_gather(numbers, mine, group=self._group)
        differ = [str(rank) for rank, other in enumerate(numbers) if other != numbers[0]]
        if differ:
            raise PruneError(
                f"{what} of rank {', '.join(differ)} differ from those of rank 0, expected equal "
                "ones: something changed them on single processes; go on from the last checkpoint"
            )


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded (FSDP2); then all processes must call this."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process stores, to be changed in place."""
    return tensor.to_local() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def local_part(values: Tensor, like: Tensor) -> Tensor:
    """The part of `values` that lies where this process stores its part of `like`.

    Args:
        values: the whole tensor, the same on all processes.
        like: plain, or sharded by any mesh and placements; of the shape of `values`.

    Without communication: a part is cut out of what every process has.
    """
    if not _is_sharded(like):
        return values
    from torch.distributed.tensor import DTensor, Replicate

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    copies = [Replicate()] * mesh.ndim
    everywhere = DTensor.from_local(values, mesh, copies, run_check=False)
    return everywhere.redistribute(mesh, placements).to_local()


def _is_sharded(tensor: Tensor) -> bool:
    if type(tensor) in (Tensor, torch.nn.Parameter) or not dist.is_available():
        return False
    from torch.distributed.tensor import DTensor  # slow to import, and rarely needed

    return isinstance(tensor, DTensor)
