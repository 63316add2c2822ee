"""The prescription as options of the training script of BioNeMo's recipes, or a refusal."""

from dataclasses import replace
from typing import Any

import pytest

from autopsae.arrays import InputError
from autopsae.cure import bionemo_flags
from autopsae.sae.sparsity import BatchTopK
from autopsae.training.bias import BIASES
from tests.cure.cases import CENTERED, D_IN, NARROW, UNTOUCHED, WHITENED

pytestmark = pytest.mark.quick

MODEL = ["--model-type", "topk", "--expansion-factor", "4", "--top-k", "4", "--no-normalize-input"]


def test_a_centre_is_the_recipes_median_of_several_shards() -> None:
    assert bionemo_flags(CENTERED) == [*MODEL, "--init-pre-bias", "--presample-shards", "8"]


def test_without_a_remedy_the_bias_starts_at_zero() -> None:
    assert bionemo_flags(UNTOUCHED) == [*MODEL, "--no-init-pre-bias"]


@pytest.mark.parametrize(
    ("prescription", "said"),
    [
        (
            WHITENED,
            r"got whitening, .*; write a store of map_tokens\(prescription, batches\), and train on it with",
        ),
        (NARROW, "an option for, got a subspace for the rows"),
        (replace(CENTERED, bias=BIASES["frozen"]), r"an option for, got Bias\(lr_fraction=0.0"),
        (replace(CENTERED, encoder_scale=0.25), "an option for, got encoder rows of length 0.25"),
        (replace(CENTERED, sparsity=BatchTopK(k=4)), "an option for, got the sparsity batch_?topk"),
        (replace(CENTERED, d_sae=97), f"an option for, got d_sae 97, which is no multiple of d_in = {D_IN}"),
    ],
)
def test_what_the_recipe_has_no_option_for_is_refused(prescription: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        bionemo_flags(prescription)
