"""How much the first latents of an SAE explain without the others: what Matryoshka training (`nested`) is for."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from autopsae.arrays import Tokens, chunks
from autopsae.evaluation.reconstruction import Sums
from autopsae.kernels.sparse_ops import decode_between
from autopsae.modules import evaluation_mode
from autopsae.sae.model import SAE
from autopsae.training.objective import check_nested, take_sizes


@torch.no_grad()
def fvu_of_prefixes(sae: SAE, tokens: Tokens, sizes: Sequence[int]) -> dict[int, float | None]:
    """The FVU in raw space of the reconstructions from the first m latents alone, by m; that of all is the last.

    The codes are those of the whole SAE. None where the tokens do not differ. sizes: growing, under d_sae.

    Raises InputError as `chunks`, for other sizes, and for weights that are not finite.
    """
    nested = take_sizes("nested", sizes)
    check_nested(nested, sae.d_sae)
    sae.check_finite("fvu_of_prefixes")
    sums = dict.fromkeys((*nested, sae.d_sae), Sums())
    with evaluation_mode(sae):
        for x in chunks(tokens, dtype=torch.float64, device=sae.W_enc.device):
            y, back = sae.enter(x)
            selection, x_hat = sae.select(y), sae.b_dec.expand_as(y)
            for first, last in pairwise((0, *sums)):
                [decoded] = decode_between(selection.values, selection.pairs, sae.W_dec[None], first, last)
                x_hat = x_hat + decoded
                error = (x - back(x_hat).double()).square().sum(dim=1)
                sums[last] = sums[last] + Sums.of(x, error)
    return {size: one.fvu for size, one in sums.items()}
