"""The prescription as options of the training script of NVIDIA's BioNeMo recipes (`sparse_autoencoders`)."""

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.sae.sparsity import TopK
from autopsae.training.bias import BIASES

SHARDS = 8
"""Shards over which the recipe spreads the sample of its centre: neighbours in one shard are alike."""


def bionemo_flags(prescription: Prescription) -> list[str]:
    """Options for the recipe's `train.py`, to be added to yours, as for `subprocess.run`: the model, and where its
    bias starts.

    The recipe computes the geometric median itself, from 32,768 tokens. It takes raw tokens here, because the
    prescription is one for raw tokens. Its loss is relative, so it needs no scale.

    Raises InputError for what its options cannot express: whitening, a subspace, a bias that does not learn as the
    other weights do, another sparsity than TopK, and a d_sae that is no multiple of d_in.
    """
    remedy, d_in, d_sae, sparsity = (
        prescription.remedy,
        prescription.d_in,
        prescription.d_sae,
        prescription.sparsity,
    )
    if remedy.affine.linear is not None:
        raise InputError(
            "bionemo_flags: expected a centre, got whitening, for which the recipe has no option; write a store of "
            "map_tokens(prescription, batches), and train on it with --no-init-pre-bias"
        )
    for unknown, what in (
        (remedy.subspace is not None, "a subspace for the rows"),
        (prescription.bias != BIASES["learned"], str(prescription.bias)),
        (prescription.encoder_scale != 1, f"encoder rows of length {prescription.encoder_scale:.3g}"),
        (not isinstance(sparsity, TopK), f"the sparsity {sparsity.name}"),
        (d_sae % d_in != 0, f"d_sae {d_sae:,}, which is no multiple of d_in = {d_in:,}"),
    ):
        if unknown:
            raise InputError(f"bionemo_flags: expected what the recipe has an option for, got {what}")
    assert isinstance(sparsity, TopK)
    model = ["--model-type", "topk", "--expansion-factor", str(d_sae // d_in), "--top-k", str(sparsity.k)]
    if remedy.affine.center.any():
        return [*model, "--no-normalize-input", "--init-pre-bias", "--presample-shards", str(SHARDS)]
    return [*model, "--no-normalize-input", "--no-init-pre-bias"]
