"""Thresholds that learn: a step has no slope, so one is lent to it near the threshold (Rajamanoharan et al. 2024).

K is the rectangle of height 1 on [-1/2, 1/2]; u = (pre - threshold) / bandwidth.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Values = Float[Tensor, "pairs"]


def jump(pre: Values, threshold: Values, bandwidth: float) -> Values:
    """pre where it is over its threshold, else 0. Slope in pre: 1 where it fires; in the threshold:
    -threshold / bandwidth K(u).
    """
    jumped: Tensor = _Jump.apply(pre, threshold, bandwidth)
    return jumped


def step(pre: Values, threshold: Values, bandwidth: float) -> Values:
    """1 where pre is over its threshold, else 0. Slope in the threshold: -1 / bandwidth K(u); none in pre."""
    stepped: Tensor = _Step.apply(pre, threshold, bandwidth)
    return stepped


def _near(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return (pre - threshold).abs() < bandwidth / 2


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.bandwidth = bandwidth
        ctx.save_for_backward(pre, threshold)
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        [grad] = grads
        pre, threshold = ctx.saved_tensors
        slope = -threshold / ctx.bandwidth * _near(pre, threshold, ctx.bandwidth)
        return grad * (pre > threshold), grad * slope, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.bandwidth = bandwidth
        ctx.save_for_backward(pre, threshold)
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        [grad] = grads
        pre, threshold = ctx.saved_tensors
        return None, -grad / ctx.bandwidth * _near(pre, threshold, ctx.bandwidth), None
