"""LAMB against algorithm 2 of the paper, written out one number at a time."""

import copy
import math

import torch
from torch import nn

from ssm_core.train.lamb import Lamb
from ssm_core.train.optim import make_optimizer
from ssm_core.train.options import OptimOptions


def reference(weights, gradients, lr, decay, betas=(0.9, 0.999), eps=1e-8):
    """`gradients` is one list of numbers per step; returns the weights after all of them."""
    x, m, v = list(weights), [0.0] * len(weights), [0.0] * len(weights)
    for t, gradient in enumerate(gradients, start=1):
        u = []
        for i, g in enumerate(gradient):
            m[i] = betas[0] * m[i] + (1 - betas[0]) * g
            v[i] = betas[1] * v[i] + (1 - betas[1]) * g * g
            mean, square = m[i] / (1 - betas[0] ** t), v[i] / (1 - betas[1] ** t)
            u.append(mean / (math.sqrt(square) + eps) + decay * x[i])
        size, length = (math.sqrt(sum(a * a for a in values)) for values in (x, u))
        ratio = size / length if decay and size > 0 and length > 0 else 1.0
        x = [a - lr * ratio * b for a, b in zip(x, u, strict=True)]
    return x


def run(weights, gradients, lr, decay):
    parameter = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
    optimizer = Lamb([{"params": [parameter], "weight_decay": decay}], lr=lr)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return parameter.detach()


def test_steps_are_those_of_the_paper():
    torch.manual_seed(0)
    weights = torch.randn(7, dtype=torch.float64).tolist()
    gradients = torch.randn(6, 7, dtype=torch.float64).tolist()
    for decay in (0.1, 0.0):
        expected = torch.tensor(reference(weights, gradients, 0.05, decay), dtype=torch.float64)
        torch.testing.assert_close(run(weights, gradients, 0.05, decay), expected)


def test_zeros_have_no_ratio():
    result = run([0.0, 0.0], [[1.0, -2.0]], 0.1, 0.5)
    torch.testing.assert_close(result, torch.tensor([-0.1, 0.1], dtype=torch.float64))
    assert run([1.0], [[0.0]], 0.1, 0.5).tolist() == [0.9]


def test_state_round_trip_goes_on_alike():
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 3), torch.randn(8, 4)
    optimizer = make_optimizer(layer, OptimOptions(name="lamb", lr=0.1))

    def step(module, stepper):
        stepper.zero_grad()
        module(x).square().mean().backward()
        stepper.step()

    step(layer, optimizer)
    twin = copy.deepcopy(layer)
    other = make_optimizer(twin, OptimOptions(name="lamb", lr=0.1))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        step(layer, optimizer)
        step(twin, other)
    assert torch.equal(layer.weight, twin.weight)
