"""Controls: what raw neurons and an SAE with random rows reach on the same tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens, chunks
from autopsae.features.rows import SomeTokens
from autopsae.remedies.affine import Affine
from autopsae.sae.death import fates
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import ReLU, Sparsity, TopK
from autopsae.seeds import stream
from autopsae.vectors import Vector, truth_values


def neuron_sae(center: Float[Tensor, "d_in"], *, sparsity: Sparsity | None = None) -> SAE:
    """An SAE whose latents are the neurons themselves: latent j is x_j minus its centre, latent d_in + j minus
    that, each where it is positive.

    center: such as the mean of the tokens; zeros for the raw values. sparsity: ReLU() unless given, so that all
    neurons count; TopK(k=k) for the k largest alone.
    """
    rows = torch.eye(len(center), dtype=torch.float32, device=center.device)
    both = torch.cat([rows, -rows])
    affine = Affine(center=center.detach().double())
    return SAE(
        W_enc=both, W_dec=both, b_dec=torch.zeros_like(rows[0]), sparsity=sparsity or ReLU(), affine=affine
    ).eval()


@whole_arguments("k", "seed")
def random_sae(
    sae: SAE, k: int | None = None, *, center: Float[Tensor, "d_in"] | None = None, seed: int = 0
) -> SAE:
    """An SAE with as many latents as `sae`, in the same space, with random unit rows and TopK: a control of the
    same sparsity, which knows nothing of the tokens but their centre.

    k: latents that fire per token; left out, the number that the sparsity of `sae` fixes. center: what is
    subtracted in the space of the SAE; left out, what the encoder of `sae` subtracts.

    Raises InputError where k is left out and the sparsity fixes none: pass the L0 of `evaluate`, rounded.
    """
    k = sae.sparsity.l0 if k is None else k
    if k is None:
        raise InputError(f"random_sae: expected k, as {sae.sparsity} fixes none; pass the rounded l0 of evaluate")
    drawn = torch.randn(
        sae.d_sae, sae.d_in, generator=stream(seed, "rows of a random SAE"), dtype=torch.float64, device="cpu"
    )
    rows = torch.nn.functional.normalize(drawn).to(sae.W_enc)
    b_dec = sae.encoder_center.detach() if center is None else center.to(sae.b_dec)
    return SAE(
        W_enc=rows, W_dec=rows, b_dec=b_dec, sparsity=TopK(k=k), affine=sae.affine, layer_norm=sae.layer_norm
    ).eval()


@whole_arguments("seed")
def control_saes(sae: SAE, tokens: Tokens, *, is_counted: Vector | None = None, seed: int = 0) -> dict[str, SAE]:
    """{"neurons": `neuron_sae`, "random rows": `random_sae` with as many latents per token as `sae` has on these
    tokens}. Both are centred at the mean of the tokens that count: what they lack is not the centre.

    is_counted: the tokens that count; left out, all do. Two passes. Raises InputError as `chunks` and `fates`, and
    for a mask of another length or of other values than booleans, 0 and 1.
    """
    counted = tokens if is_counted is None else SomeTokens(tokens, truth_values("is_counted", is_counted))
    # Raw, and in the space of the SAE: with layer_norm, the one cannot be told from the other.
    totals, n = torch.zeros(2, sae.d_in, dtype=torch.float64, device="cpu"), 0
    for x in chunks(counted, dtype=torch.float64):
        entered = sae.enter(x)[0]
        totals, n = totals + torch.stack([x.sum(dim=0).cpu(), entered.double().sum(dim=0).cpu()]), n + len(x)
    mean, center = (totals / n).to(sae.W_enc.device)
    counts = fates(sae, counted)
    k = max(1, round(float(counts.fired.sum()) / counts.tokens))
    return {
        "neurons": neuron_sae(mean).to(sae.W_enc),
        "random rows": random_sae(sae, k, center=center, seed=seed),
    }
