"""Adam, Adam on the latents that were touched, and the sign alone; each member has its rates and frozen parts."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.arrays import InputError
from autopsae.kernels.adam import Adam, adam, adam_from_sum, has_loop, rate_of_younger, remove_parallel
from autopsae.kernels.gradients import Gradients, OuterSum
from autopsae.sae.weights import Weights
from autopsae.training.bias import Bias
from autopsae.training.config import TrainConfig
from autopsae.transfers import send


class Optimizer:
    """Takes steps on the weights of members, each at its own rates; a frozen part has none, and stays as it is.

    moments: of each parameter, the first and the second, [2, members, ...]; none for SignSGD, where a coordinate
    moves by the learning rate against its gradient's sign (paper, Fig. S10). In sparse Adam, only rows (for
    vectors: coordinates) with a gradient move and remember, as torch.optim.SparseAdam does for sparse gradients: a
    latent that did not fire is left alone, momentum included.
    """

    def __init__(self, weights: Weights, configs: Sequence[TrainConfig]) -> None:
        """Parts that are frozen in all members get no gradient any more.

        Raises InputError for a frozen name that the SAEs do not have, and where nothing is left to train.
        """
        self._weights, self._kind, self._unit = weights, configs[0].optimizer, configs[0].unit_decoder
        self._clip = [config.clip_norm for config in configs]
        self._biases = [config.bias for config in configs]
        self.steps, self.moments, self._rates = 0, dict[str, Tensor](), dict[str, Tensor]()
        names = {*weights.parameters}
        for config in configs:
            if {*config.frozen} - names or not any(_rate(config, name) for name in names):
                raise InputError(
                    f"frozen: expected some, but not all, of {', '.join(weights.parameters)}, got {config.frozen}"
                )
        for name, parameter in weights.parameters.items():
            rates = [_rate(config, name) for config in configs]
            parameter.requires_grad_(any(name not in config.frozen for config in configs))
            self._rates[name] = torch.tensor(rates, dtype=torch.float64, device=parameter.device)
            if self._kind != "sign_sgd" and parameter.requires_grad:
                self.moments[name] = parameter.new_zeros(2, *parameter.shape, requires_grad=False)
        W_enc = weights.W_enc.detach()
        self._encoder_lengths = torch.ones(len(configs), dtype=torch.float64, device=W_enc.device)
        for member, config in enumerate(configs):
            if config.relative_encoder_lr:
                lengths = W_enc[member].norm(dim=1).double()
                length_and_number = torch.stack([lengths.sum(), lengths.new_tensor(len(lengths))])
                summed = weights.ranks.sum_for_peers(length_and_number, "birth")
                self._encoder_lengths[member] = summed[0] / summed[1]
        if self._unit:
            self._normalize()

    @property
    def _gradients(self) -> Gradients | None:
        return self._weights.gradients

    def tensors(self) -> dict[str, Tensor]:
        """What the next step depends on besides weights and gradients. encoder_lengths: [members], by which the
        rates of the encoder are multiplied.
        """
        moments = {f"moments.{name}": moments for name, moments in self.moments.items()}
        return {**moments, "encoder_lengths": self._encoder_lengths}

    @torch.no_grad()
    def step(self, factors: Float[Tensor, "members"]) -> None:
        """Step along the gradients, each member at this fraction of its rates; 0 leaves it as it is."""
        self.steps += 1
        self._weights.sum_shared_gradients()
        rates = {name: self._rates_now(name, factors) for name in self._weights.parameters}
        clips = any(clip is not None for clip in self._clip)
        several = not self._weights.ranks.peers.is_alone
        if several or clips or self._kind == "sign_sgd" or not has_loop(self._weights.W_enc):
            self._write_gradients()
        self._weights.sum_gradients_of_peers()
        if clips:
            self._clip_gradients(rates)
        for name, parameter in self._weights.parameters.items():
            some = self._gradients.take(name) if self._gradients else []
            if self._gradients and some:
                self._step_from_sum(name, self._gradients.join(some), rates[name])
            elif parameter.grad is not None:
                self._step_along(name, parameter.grad.contiguous(), rates[name])
        if self._kind == "sign_sgd" and self._unit:
            self._normalize()
        if self._gradients:
            self._gradients.clear()  # the pairs of a step need no memory in the next

    def _rates_now(self, name: str, factors: Float[Tensor, "members"]) -> Float[Tensor, "members"]:
        """Each member's rate of a parameter in this step: 0 for a `b_dec` that does not learn in it."""
        rates = self._rates[name] * factors
        if name not in ("W_dec", "b_dec"):
            rates = rates * self._encoder_lengths
        if name != "b_dec" or all(bias.from_step == 0 and bias.until_step is None for bias in self._biases):
            return rates
        scheduled = torch.tensor(
            [self._share_of_bias(bias) for bias in self._biases], dtype=torch.float64, device="cpu"
        )
        return rates * send(scheduled, rates.device)

    def _share_of_bias(self, bias: Bias) -> float:
        """What the rate of a member's `b_dec` is multiplied by in this step."""
        if not bias.learns(self.steps - 1):
            return 0.0
        # At rate 0 Adam leaves moments at 0. Without the correction it would take them for old ones, whose gradient
        # is small, and the first steps after `from_step` would be several times as long as the rate says.
        age = self.steps - bias.from_step
        return 1.0 if self._kind == "sign_sgd" else rate_of_younger(self.steps, age=age)

    def _step_along(self, name: str, grad: Tensor, rates: Float[Tensor, "members"]) -> None:
        """Step of one parameter along its gradient."""
        parameter, how = self._weights.parameters[name], self._how(name)
        if self._kind == "sign_sgd":
            rows, grads = _rows(parameter), _rows(grad)
            if how.unit:
                remove_parallel(grads, rows)
            each = rates.to(rows).repeat_interleave(len(rows) // len(rates))[:, None]
            # Where a loss was not finite, the rate is 0, and the sign may be NaN.
            rows.sub_(torch.where(each > 0, grads.sign() * each, 0))
            return
        first, second = (_rows(moment, entries=how.sparse) for moment in self.moments[name])
        rows, grads = (_rows(tensor, entries=how.sparse) for tensor in (parameter, grad))
        adam(rows, grads, first, second, rates, how)

    def _step_from_sum(self, name: str, one: OuterSum, rates: Float[Tensor, "members"]) -> None:
        """Step of a weight matrix along a gradient that is made row by row, and never written."""
        parameter = self._weights.parameters[name]
        first, second = (_rows(moment) for moment in self.moments[name])
        grads = None if parameter.grad is None else _rows(parameter.grad.contiguous())
        adam_from_sum(_rows(parameter), grads, first, second, rates, self._how(name), one)

    def _how(self, name: str) -> Adam:
        """What the step does to the rows of a parameter."""
        unit = name == "W_dec" and self._unit
        return Adam(step=self.steps, unit=unit, sparse=self._kind == "sparse_adam")

    def _write_gradients(self) -> None:
        """Turn what the backward pass left unwritten into gradients as usual."""
        for name, parameter in self._weights.parameters.items():
            for one in self._gradients.take(name) if self._gradients else []:
                written = one.write()
                parameter.grad = written if parameter.grad is None else parameter.grad + written

    def forget_gradients(self) -> None:
        """Before the backward pass of a step."""
        if self._gradients:
            self._gradients.clear()
        for parameter in self._weights.parameters.values():
            parameter.grad = None

    def forget(self, member: int, latents: Int[Tensor, "some"]) -> None:
        """Let the moments of some latents be zero."""
        for name, moments in self.moments.items():
            if name != "b_dec":
                moments[:, member, latents] = 0

    def keep(self, weights: Weights, members: Int[Tensor, "some"]) -> None:
        """Go on with these members alone, whose weights are given anew."""
        for name, parameter in weights.parameters.items():
            parameter.requires_grad_(self._weights.parameters[name].requires_grad)
        self._weights = weights
        self._clip, self._biases = ([of[m] for m in members.tolist()] for of in (self._clip, self._biases))
        self._rates = {name: rates[members] for name, rates in self._rates.items()}
        self._encoder_lengths = self._encoder_lengths[members]
        self.moments = {name: moments[:, members] for name, moments in self.moments.items()}

    @torch.no_grad()
    def _normalize(self) -> None:
        """Decoder rows to unit length, where they are not frozen."""
        W_dec, thawed = self._weights.W_dec, self._rates["W_dec"] > 0
        unit = normalize(W_dec, dim=2, eps=torch.finfo(W_dec.dtype).tiny)
        W_dec.copy_(torch.where(thawed[:, None, None], unit, W_dec))

    def _clip_gradients(self, rates: Mapping[str, Float[Tensor, "members"]]) -> None:
        """Each member's gradient to the norm it may have; parts that do not move in this step do not count."""
        graded = {name: p for name, p in self._weights.parameters.items() if p.grad is not None}
        if self._unit and "W_dec" in graded:
            grad = self._weights.W_dec.grad
            assert grad is not None
            remove_parallel(_rows(grad), _rows(self._weights.W_dec))
        ranks = self._weights.ranks
        # Each rank has the gradient of its own latents, and all have that of `b_dec`, which counts once.
        counts = {name: (rates[name] > 0) * (ranks.is_first or name != "b_dec") for name in graded}
        squares = [p.grad.flatten(1).square().sum(dim=1) * counts[name] for name, p in graded.items()]  # type: ignore[union-attr]
        norm = ranks.sum_for_peers(torch.stack(squares).sum(dim=0), "gradient norm").sqrt()
        limit = norm.new_tensor([torch.inf if clip is None else clip for clip in self._clip])
        factor = (limit / (norm + 1e-6)).clamp_max(1)
        for p in graded.values():
            p.grad.mul_(factor.view(-1, *[1] * (p.ndim - 1)))  # type: ignore[union-attr]


def _rate(config: TrainConfig, name: str) -> float:
    if name in config.frozen:
        return 0.0
    return config.lr * config.bias.lr_fraction if name == "b_dec" else config.lr


def _rows(tensor: Tensor, *, entries: bool = False) -> Float[Tensor, "rows columns"]:
    """[members, ..., columns] as rows; of vectors, every entry is one where asked."""
    rows = tensor.detach().reshape(-1, 1) if entries and tensor.ndim == 2 else tensor.detach()
    return rows.flatten(0, -2)
