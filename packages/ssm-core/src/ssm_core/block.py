"""One pre-norm residual block: a mixer over the steps and, if wanted, an MLP over the channels.

Sources: Gu & Dao 2023, arXiv:2312.00752, section 3.4; Xiong et al. 2020, arXiv:2002.04745
(pre-norm); Huang et al. 2016, arXiv:1603.09382 (drop path).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ssm_core.errors import ConfigError
from ssm_core.layers.checks import int_from, positive_int, probability
from ssm_core.layers.protocol import LayerState, SequenceLayer
from ssm_core.linear import Linear
from ssm_core.norm import NormName, at_least_float32, make_norm
from ssm_core.shapes import Activations, Offsets


class MLP(nn.Module):
    """Two linear maps with a GELU between, on every step by itself: (b, l, d) -> (b, l, d)."""

    def __init__(self, d_model: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.fc1 = Linear(d_model, hidden, bias=bias)
        self.fc2 = Linear(hidden, d_model, bias=bias)

    def resized(self, sizes: Mapping[str, Any]) -> MLP:
        """Return a new, untrained MLP with `sizes` = {"hidden": hidden channels}.

        Raises:
            ConfigError: other sizes.
        """
        if set(sizes) != {"hidden"}:
            raise ConfigError(f"MLP: sizes are {dict(sizes)}, expected 'hidden' alone")
        hidden = positive_int("MLP", "hidden", sizes["hidden"])
        return MLP(self.fc1.in_features, hidden, bias=self.fc1.bias is not None)

    def forward(self, x: Activations) -> Activations:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """In training, drop a whole residual branch per example with probability `rate`.

    Examples are the first axis of x (b, ...). The branches that stay are divided by 1 - rate, so
    that the expected value does not change.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = probability("DropPath", "rate", rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1.0 - self.rate)
        return x * keep.div_(1.0 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class Block(SequenceLayer):
    """r = x + drop(mixer(norm(x))), then r + drop(mlp(norm2(r))) if there is an MLP.

    The residual stream is float32 (or float64) whatever the type of x, of the weights or of
    autocast; the norm hands the mixer the type of its weights. The state is the mixer's.

    Attributes:
        residual_in_fp32: keep it so; False leaves the residual stream in the type of x.
        branches: names of the parts that add to the residual stream; without them the block is the
            identity.
    """

    branches = ("mixer", "mlp")
    residual_in_fp32 = True
    mlp: nn.Module | None

    def __init__(
        self,
        d_model: int,
        mixer: SequenceLayer,
        mlp_hidden: int = 0,
        norm: NormName = "rms",
        dropout: float = 0.0,
        drop_path: float = 0.0,
        bias: bool = True,
    ) -> None:
        """Wrap `mixer`.

        Args:
            mlp_hidden: hidden channels of the MLP; 0 means no MLP.
            norm: "rms" or "layer".
            dropout: probability of dropping a number of a branch's output in training.
            drop_path: probability of dropping a whole branch of a sequence in training.
            bias: biases in the norms and the MLP; the mixer has options of its own.
        Raises:
            ConfigError: a value out of range.
        """
        super().__init__()
        int_from(0, "Block", "mlp_hidden", mlp_hidden)
        self.d_model = d_model
        self.causal = mixer.causal
        self.norm = make_norm(norm, d_model, bias=bias)
        self.mixer = mixer
        self.norm2 = make_norm(norm, d_model, bias=bias) if mlp_hidden else None
        self.mlp = MLP(d_model, mlp_hidden, bias) if mlp_hidden else None
        drops = nn.Dropout(probability("Block", "dropout", dropout)), DropPath(drop_path)
        # None and not an idle module: a single step would spend a tenth of its time in it
        self.drop = nn.Sequential(*drops) if dropout or drop_path else None

    def mix(
        self,
        x: Activations,
        state: LayerState | None,
        cu_seqlens: Offsets | None,
        return_state: bool,
    ) -> tuple[Activations, LayerState | None]:
        """Add both branches to x (b, l, d); see `SequenceLayer.forward`."""
        residual = at_least_float32(x) if self.residual_in_fp32 else x
        # only where needed: a layer from elsewhere may not know packed sequences
        packed = {} if cu_seqlens is None else {"cu_seqlens": cu_seqlens}
        branch = self.mixer(self.norm(residual), state=state, return_state=return_state, **packed)
        if return_state:
            branch, state = branch
        residual = residual + (branch if self.drop is None else self.drop(branch))
        if self.mlp is not None and self.norm2 is not None:
            branch = self.mlp(self.norm2(residual))
            residual = residual + (branch if self.drop is None else self.drop(branch))
        return residual, state

    def initial_state(self, batch: int) -> LayerState:
        """Return the mixer's state before the first step, for `batch` sequences."""
        return self.mixer.initial_state(batch)
