"""A script written for mamba_ssm trains on a CPU as it is, by `python -m ssm_kernels.compat`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys

import torch
from mamba_ssm import Mamba
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import nn


class Model(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(8, width)
        self.norm = nn.LayerNorm(width)
        self.mamba = Mamba(d_model=width, d_state=4, d_conv=4, expand=2)
        self.log_step = nn.Parameter(torch.full((width,), -2.0))
        self.A_log = nn.Parameter(torch.zeros(width, 4))
        self.projection = nn.Linear(width, 8)
        self.head = nn.Linear(width, 8)

    def forward(self, ids):
        x = self.embedding(ids)
        x = x + self.mamba(self.norm(x))
        B, C = self.projection(x).transpose(1, 2).contiguous().chunk(2, dim=1)
        u = x.transpose(1, 2).contiguous()
        step = self.log_step[:, None].expand_as(u)
        y, last_state = selective_scan_fn(
            u, step, -self.A_log.exp(), B, C, None, z=None, delta_softplus=True,
            return_last_state=True,
        )
        assert last_state.shape == (len(ids), 16, 4)
        return self.head(y.transpose(1, 2))


torch.manual_seed(0)
model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
ids = torch.randint(8, (4, 33))
losses = []
for _ in range(int(sys.argv[1])):
    logits = model(ids[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    losses.append(loss.item())
print(losses[0] > losses[-1] + 0.2, type(model.mamba).__module__)
"""


def test_a_script_trains_unchanged(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "ssm_kernels.compat", "train.py", "15"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True ssm_core.compat.mamba\n"
    assert done.stderr.count("\n") == 1
    assert "mamba_ssm" in done.stderr
