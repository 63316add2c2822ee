"""Loss recovered: what a language model loses when it goes on with an SAE's reconstructions instead of its own
activations, as a share of what it loses without them.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from autopsae.activations.batches import first_batch, forward, parts_of
from autopsae.activations.hooks import hooked
from autopsae.activations.masks import is_encoder_decoder, keep_mask
from autopsae.activations.replace import at_module, replace_activations
from autopsae.activations.sources import watch
from autopsae.arguments import whole_arguments
from autopsae.arrays import CHUNK_TOKENS, InputError
from autopsae.modules import evaluation_mode
from autopsae.tables import Result

_Map = Callable[[Tensor], Tensor]
ABLATIONS = ("zero", "mean")


@dataclass(frozen=True, kw_only=True, repr=False)
class LossRecovered(Result):
    """A language model with an SAE's reconstructions in one layer. Losses are mean cross-entropies per token, in
    nats.
    """

    tokens: int
    """Predicted tokens, all of them: also those before and beside which nothing was replaced."""
    loss: float
    """Of the model as it is."""
    loss_reconstructed: float
    """With the SAE's reconstructions in the layer."""
    loss_ablated: float
    """With the ablation in the layer."""
    recovered: float | None
    """(loss_ablated - loss_reconstructed) / (loss_ablated - loss): 1 where the reconstructions cost nothing, 0
    where they are worth no more than the ablation, less than 0 where they are worse. None where the ablation costs
    nothing either, so that there is nothing to recover."""

    def __str__(self) -> str:
        share = "nothing to recover" if self.recovered is None else f"{self.recovered:.1%} of the loss recovered"
        losses = f"reconstructed {self.loss_reconstructed:.4f}, ablated {self.loss_ablated:.4f}"
        return f"{share}: {self.loss:.4f}, {losses}"


@torch.no_grad()
@whole_arguments("skip_first")
def loss_recovered(
    sae: _Map,
    model: nn.Module,
    batches: Iterable[Any],
    *,
    point: str,
    keep: Callable[[Any], Bool[Tensor, "rows positions"]] | None = None,
    skip_first: int = 0,
    ablate: str = "zero",
) -> LossRecovered:
    """Run a causal language model on texts three times: as it is, with the SAE's reconstructions, and ablated.

    sae: raw tokens [tokens, d_in] -> their reconstructions; it is given float32 by a model in half precision.
    model: takes token ids, returns `logits`. batches: token ids [rows, positions], or dicts with `input_ids` and,
    where there is padding, `attention_mask` of bool or 0/1, as a tokenizer or `text_batches` makes them. point:
    what the SAE was trained on, as `hooked` names it.

    Replaced are the activations of all tokens but padding, the first `skip_first` of a row (attention sinks), and
    those where `keep(batch)` is False. ablate: "zero", or "mean" of the activations to be replaced, from a first
    pass.

    Raises InputError as `at_module` and `replace_activations`, for batches that are no token ids, for masks that
    are not bool or 0/1 of their shape, where no token is replaced or none predicted, for an SAE of another width,
    and for a model that is an encoder-decoder or does not return logits.
    """
    if ablate not in ABLATIONS:
        raise InputError(f"ablate: expected {' or '.join(ABLATIONS)}, got {ablate!r}")
    total = torch.zeros(3, dtype=torch.float64, device="cpu")
    tokens = replacements = 0
    with evaluation_mode(model), evaluation_mode(sae) if isinstance(sae, nn.Module) else nullcontext():
        first = first_batch(batches)
        if is_encoder_decoder(model, first):
            raise InputError(
                "expected a causal language model, got an encoder-decoder, which predicts other tokens than it "
                "reads; pass a model that has only a decoder"
            )
        point = at_module(model, point, _ids(first))
        mean = torch.zeros((), dtype=torch.float32, device="cpu")
        if ablate == "mean":
            mean = _mean(model, batches, point, keep, skip_first)
        for at, batch in enumerate(watch(batches, "batch")):
            ids, real, mask = _masks(batch, keep, skip_first)
            reconstruct = _where(mask, lambda x: _reconstruct(sae, x), point)
            ablated = _where(mask, lambda x: mean.to(x).expand_as(x), point)
            for number, new in enumerate([None, reconstruct, ablated]):
                with replace_activations(model, point, new) if new else nullcontext():
                    output = forward(model, batch, at)
                total[number] += _nats(output, ids, real)
            tokens += int(_is_predicted(real).sum())
            replacements += int(mask.sum())
    if not tokens or not replacements:
        lacking = "a token to predict: rows of two or more" if not tokens else "a token to replace"
        raise InputError(f"expected at least {lacking}, got none; check the texts, `keep` and `skip_first`")
    loss, reconstructed, ablation = (total / tokens).tolist()
    return LossRecovered(
        tokens=tokens,
        loss=loss,
        loss_reconstructed=reconstructed,
        loss_ablated=ablation,
        recovered=(ablation - reconstructed) / (ablation - loss) if ablation > loss else None,
    )


def _masks(
    batch: Any, keep: Callable[[Any], Tensor] | None, skip_first: int
) -> tuple[Tensor, Bool[Tensor, "rows positions"], Bool[Tensor, "rows positions"]]:
    """(ids, which of them are no padding, which activations are replaced)."""
    ids = _ids(batch)
    mask = keep_mask(batch, keep, ids.shape)
    real = mask if keep is None else keep_mask(batch, None, ids.shape)
    return ids, real, mask & (real.cumsum(dim=1) > skip_first)


def _ids(batch: Any) -> Tensor:
    ids = batch if isinstance(batch, Tensor) else parts_of(batch).get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
        got = f"shape {tuple(ids.shape)} of {ids.dtype}" if isinstance(ids, Tensor) else "no input_ids"
        raise InputError(
            f"expected batches of token ids [rows, positions], got {got}; pass a list such as ids.split(8)"
        )
    return ids.long()


def _mean(
    model: nn.Module,
    batches: Iterable[Any],
    point: str,
    keep: Callable[[Any], Tensor] | None,
    skip_first: int,
) -> Float[Tensor, "d_in"]:
    """The mean of the activations that will be replaced; sums in float64."""
    total, n = torch.zeros((), dtype=torch.float64, device="cpu"), 0
    with hooked(model, [point]) as capture:
        for at, batch in enumerate(watch(batches, "batch")):
            _, _, mask = _masks(batch, keep, skip_first)
            forward(model, batch, at)
            x = capture.take(mask)[point].double()
            total = total + x.sum(dim=0)
            n += len(x)
    return total / max(n, 1)


def _where(mask: Bool[Tensor, "rows positions"], new: _Map, point: str) -> _Map:
    """`new` for the tokens of the mask alone; the others stay as they are."""

    def change(x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).clone()
        if x.shape[:-1] not in (mask.shape, (mask.numel(),)):
            raise InputError(
                f"{point}: expected an activation for each token of {tuple(mask.shape)}, got {tuple(x.shape)}; "
                "choose a point that sees every token"
            )
        at = mask.flatten().to(x.device)
        if at.any():
            rows[at] = new(rows[at])
        return rows.view_as(x)

    return change


def _reconstruct(sae: _Map, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
    """Through the SAE in pieces, and back to the model's precision."""
    shape = torch.Size([len(x), getattr(sae, "d_in", x.shape[1])])
    if shape == x.shape:
        x_hat = torch.cat([sae(piece) for piece in _at_least_float32(x).split(CHUNK_TOKENS)])
        shape = x_hat.shape
    if shape != x.shape:
        raise InputError(
            f"sae: expected tokens {tuple(x.shape)} as the model has them at this point, got {tuple(shape)}; pass "
            "the point that the SAE was trained on"
        )
    return x_hat.to(x)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _nats(output: Any, ids: Tensor, real: Bool[Tensor, "rows positions"]) -> float:
    """The summed cross-entropy of the predicted tokens; row by row, for a copy of all logits may be large."""
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.shape[:-1] != ids.shape:
        got = f"logits {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(output).__name__
        raise InputError(
            f"expected a causal language model that returns logits ({len(ids)}, {ids.shape[1]}, vocabulary), got "
            f"{got}; load it with AutoModelForCausalLM, and ask for all logits"
        )
    total = 0.0
    for scores, row, predicted in zip(
        logits, ids.to(logits.device), _is_predicted(real).to(logits.device), strict=True
    ):
        nats = F.cross_entropy(_at_least_float32(scores[:-1][predicted]), row[1:][predicted], reduction="none")
        total += float(nats.double().sum())
    return total


def _is_predicted(real: Bool[Tensor, "rows positions"]) -> Bool[Tensor, "rows positions-1"]:
    """Tokens after the first that are no padding and follow none."""
    return real[:, 1:] & real[:, :-1]
