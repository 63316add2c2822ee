"""Adam, Adam on the latents that were touched, and the sign alone; frozen parts, and an own rate for b_dec."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.sae.model import SAE
from autopsae.training.config import TrainConfig


def optimizer_for(sae: SAE, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of every parameter that is not frozen, and it alone gets a gradient.

    Raises InputError for a frozen name that the SAE does not have, and where nothing is left to train.
    """
    named = dict(sae.named_parameters())
    unknown = {*config.frozen} - {*named}
    if unknown or not {*named} - {*config.frozen}:
        raise InputError(f"frozen: expected some, but not all, of {', '.join(named)}, got {config.frozen}")
    for name, parameter in named.items():
        parameter.requires_grad_(name not in config.frozen)
    b_dec_lr = config.lr if config.b_dec_lr is None else config.b_dec_lr
    others = [p for name, p in named.items() if p.requires_grad and name != "b_dec"]
    bias = [p for name, p in named.items() if p.requires_grad and name == "b_dec"]
    groups: list[dict[str, Any]] = [
        {"params": params, "lr": rate, "full_lr": rate}
        for params, rate in ((others, config.lr), (bias, b_dec_lr))
        if params
    ]
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, fused=True)
    return RowAdam(groups) if config.optimizer == "sparse_adam" else SignSGD(groups)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Every group's learning rate as a fraction of its full one."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * rate


class _Optimizer(torch.optim.Optimizer):
    """Walks over the parameters that have a gradient."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    def update(self, parameter: Tensor, grad: Tensor, lr: float) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, group["lr"])


class RowAdam(_Optimizer):
    """Adam where only rows (for vectors: coordinates) with a gradient move and remember, as torch.optim.SparseAdam
    does for sparse gradients: a latent that did not fire is left alone, momentum included.
    """

    BETAS, EPS = (0.9, 0.999), 1e-8

    def update(self, parameter: Tensor, grad: Tensor, lr: float) -> None:
        """One step for one parameter."""
        state = self.state[parameter]
        if not state:
            state.update(step=torch.zeros(()), exp_avg=torch.zeros_like(grad), exp_avg_sq=torch.zeros_like(grad))
        state["step"] += 1
        touched = grad if grad.ndim == 1 else grad.abs().amax(dim=1)
        rows = touched.nonzero()[:, 0]
        (beta1, beta2), t = self.BETAS, float(state["step"])
        g = grad.index_select(0, rows)
        m = state["exp_avg"].index_select(0, rows).lerp_(g, 1 - beta1)
        v = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(g, g, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, m)
        state["exp_avg_sq"].index_copy_(0, rows, v)
        size = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        parameter.index_add_(0, rows, m.div_(v.sqrt_().add_(self.EPS)), alpha=-size)


class SignSGD(_Optimizer):
    """Each coordinate moves by the learning rate against its gradient's sign (paper, Fig. S10)."""

    def update(self, parameter: Tensor, grad: Tensor, lr: float) -> None:
        """One step for one parameter."""
        parameter.sub_(grad.sign(), alpha=lr)
