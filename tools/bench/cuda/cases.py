"""What is timed. The scans are the table of section 2 of the kernels' design, one call of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scan:
    """A selective scan with softplus and skip; `groups` of channels share B and C."""

    b: int
    d: int
    l: int
    n: int = 16
    gate: bool = True
    groups: int = 1

    @property
    def elements(self) -> int:
        return self.b * self.d * self.l


@dataclass(frozen=True)
class Conv:
    """A causal convolution with SiLU; or, `l` = 1, one step of it with a state."""

    b: int
    d: int
    l: int
    k: int = 4

    @property
    def elements(self) -> int:
        return self.b * self.d * self.l


@dataclass(frozen=True)
class Ssd:
    """Mamba-2: h heads of p channels with n states, `groups` of heads share B and C."""

    b: int
    l: int
    h: int
    p: int = 64
    n: int = 128
    groups: int = 1

    @property
    def elements(self) -> int:
        return self.b * self.l * self.h * self.p


@dataclass(frozen=True)
class Diagonal:
    """h = a h + u, real, a of the shape of u."""

    b: int
    d: int
    l: int

    @property
    def elements(self) -> int:
        return self.b * self.d * self.l


@dataclass(frozen=True)
class Step:
    """One step of a selective scan with the state in memory, in float32."""

    b: int
    d: int
    n: int = 16

    @property
    def elements(self) -> int:
        return self.b * self.d


SCANS = {
    "Vim-Ti 224 b128": Scan(128, 384, 197),
    "Vim-S 224 b128": Scan(128, 768, 197),
    "Vim-Ti 1248 b8": Scan(8, 384, 6085),
    "Vim-S 1248 b8": Scan(8, 768, 6085),
    "MambaVision-T st3 b128": Scan(128, 160, 196, 8, gate=False),
    "MambaVision-T st4 b128": Scan(128, 320, 49, 8, gate=False),
    "VMamba-T st1 b128": Scan(128, 4 * 96, 3136, 1, gate=False, groups=4),
    "VMamba-T st2 b128": Scan(128, 4 * 192, 784, 1, gate=False, groups=4),
    "VMamba-T st3 b128": Scan(128, 4 * 384, 196, 1, gate=False, groups=4),
    "VMamba-T st4 b128": Scan(128, 4 * 768, 49, 1, gate=False, groups=4),
    "mamba-130m b8": Scan(8, 1536, 2048),
    "mamba-1.4b b8": Scan(8, 4096, 2048),
}
CONVS = {
    "Vim-S 224 b128": Conv(128, 768, 197),
    "Vim-S 1248 b8": Conv(8, 768, 6085),
    "mamba-130m b8": Conv(8, 1536, 2048),
    "mamba-1.4b b8": Conv(8, 4096, 2048),
}
CONV_STEPS = {"mamba-130m b1": Conv(1, 1536, 1), "mamba-1.4b b64": Conv(64, 4096, 1)}
SSDS = {
    "mamba2-130m b8": Ssd(8, 2048, 24),
    "mamba2-1.3b b8": Ssd(8, 2048, 64),
    "mamba2-2.7b b1 L8192": Ssd(1, 8192, 80),
}
DIAGONALS = {
    "b8 d1536 L2048": Diagonal(8, 1536, 2048),
    "b16 d128 L2048": Diagonal(16, 128, 2048),
    "b1 d256 L16384": Diagonal(1, 256, 16384),
}
STEPS = {
    "mamba-130m b1": Step(1, 1536),
    "mamba-130m b64": Step(64, 1536),
    "mamba-1.4b b64": Step(64, 4096),
}

SMOKE_SCANS = {
    "tiny": Scan(1, 8, 9, 4),
    "tiny groups": Scan(1, 8, 7, 2, gate=False, groups=2),
}
SMOKE_CONVS = {"tiny": Conv(1, 8, 9)}
SMOKE_CONV_STEPS = {"tiny": Conv(2, 8, 1)}
SMOKE_SSDS = {"tiny": Ssd(1, 9, 2, 4, 8)}
SMOKE_DIAGONALS = {"tiny": Diagonal(1, 8, 8)}
SMOKE_STEPS = {"tiny": Step(2, 8, 4)}
