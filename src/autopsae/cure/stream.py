"""The cure before any library: tokens mapped as prescribed, and an SAE of such tokens for raw ones."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.interop.plain import Plain
from autopsae.sae.model import SAE


def map_tokens(prescription: Prescription, tokens: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tokens as they are after the prescribed map, batch by batch: what a library that has no whitening is to
    be trained on.

    Raises InputError for batches that are not [..., tokens, d_in], such as the rows of one matrix, and for NaN or
    infinity.
    """
    affine = prescription.remedy.affine
    for batch in tokens:
        if batch.ndim < 2 or batch.shape[-1] != len(affine.center):
            raise InputError(
                f"map_tokens: expected batches [tokens, d_in = {len(affine.center)}], got one of shape "
                f"{[*batch.shape]}; pass an iterable of matrices, [x] for one alone"
            )
        if not bool(batch.isfinite().all()):
            raise InputError("map_tokens: expected finite tokens, got NaN or infinity; leave these tokens out")
        yield affine(batch.flatten(0, -2)).reshape(batch.shape)


def unmap_sae(sae: SAE, prescription: Prescription) -> SAE:
    """The SAE trained on `map_tokens` tokens, for raw ones: the map folded into plain weights.

    Raises InputError under layer_norm, and for an SAE that has a map of its own.
    """
    if sae.linear is not None or sae.scale != 1 or bool(sae.center.any()):
        raise InputError("unmap_sae: expected an SAE of plain weights; fold it first")
    if sae.layer_norm:
        raise InputError(
            "unmap_sae: expected an affine SAE, got layer_norm = True; no weights divide by a token's norm"
        )
    plain = Plain.of(sae, prescription.remedy.affine)
    return plain.sae(sparsity=sae.sparsity, dtype=sae.W_enc.dtype).train(sae.training)


def peek(batches: Iterable[Tensor], tokens: int) -> tuple[Float[Tensor, "tokens d_in"], Iterator[Tensor]]:
    """(the first `tokens` tokens of a stream, the whole stream from its start): a look at an iterator, such as
    dictionary_learning's ActivationBuffer, that takes nothing from the training. Batches of more dimensions are
    flattened for the look alone. Takes the memory of what it looks at.

    Raises InputError for a stream that ends before.
    """
    stream, seen, count = iter(batches), [], 0
    while count < tokens:
        batch = next(stream, None)
        if batch is None:
            raise InputError(f"peek: expected at least {tokens:,} tokens, the stream ended after {count:,}")
        seen.append(batch.clone())  # a stream may refill one buffer
        count += batch[..., 0].numel()

    def whole() -> Iterator[Tensor]:
        yield from seen
        yield from stream

    return torch.cat([batch.reshape(-1, batch.shape[-1]) for batch in seen])[:tokens], whole()
