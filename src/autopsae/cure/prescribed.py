"""What the cures of all libraries need of a prescription."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.diagnosis.prescribe import Prescription
from autopsae.remedies.remedy import center
from autopsae.remedies.view import within
from autopsae.training.bias import BIASES


def center_only(prescription: Prescription) -> Prescription:
    """The prescription without its whitening or subspace, where a library has no place for them: its centre. Most
    of what kills at birth is cured by it; what dies in training may not be.
    """
    return replace(prescription, remedy=center(prescription.b_dec, "median"), scale=None)


def rows_within(prescription: Prescription, W_dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "d_sae d_in"]:
    """The rows turned into the prescribed subspace, each as long as it was."""
    rows: Tensor = within(prescription.remedy.subspace, W_dec) * W_dec.norm(dim=1, keepdim=True)
    return rows


def check_prescription(prescription: Prescription, d_in: int) -> None:
    """InputError unless the prescription is for tokens of `d_in` dimensions, and lets `b_dec` learn as usual: a
    cure sets up an SAE, and how its parts learn is for the other library's trainer.
    """
    if prescription.d_in != d_in:
        raise InputError(f"cure: expected a prescription for d_in = {d_in}, got one for {prescription.d_in}")
    if prescription.bias != BIASES["learned"]:
        raise InputError(
            f"cure: expected a prescription whose b_dec learns like the other weights, got {prescription.bias}; "
            "train with autopsae, or set the learning rate of b_dec in the other library and pass "
            "dataclasses.replace(prescription, bias=Bias())"
        )
