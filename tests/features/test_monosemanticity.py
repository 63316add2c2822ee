"""Laws of the monosemanticity score: the linear form is the double loop, and latents made by hand reach 0 and 1."""

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autopsae.arrays import InputError
from autopsae.features.monosemanticity import monosemanticity
from autopsae.features.pool import pool_codes
from tests.features.sources import codes_of, sparse_matrix

pytestmark = pytest.mark.quick


def embeddings(inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(inputs, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def by_a_double_loop(a: NDArray[np.float64], e: torch.Tensor) -> float:
    """The definition of Pach et al. over all pairs of inputs."""
    unit = (e / e.norm(dim=1, keepdim=True)).numpy()
    scaled = (a - a.min()) / (a.max() - a.min())
    part = whole = 0.0
    for i in range(len(a)):
        for j in range(i):
            part += scaled[i] * scaled[j] * float(unit[i] @ unit[j])
            whole += scaled[i] * scaled[j]
    return part / whole


def test_the_linear_form_is_the_double_loop() -> None:
    dense = sparse_matrix(60, 7, share=0.4)
    dense[:, 3] += 2.0  # fires on all inputs, so that its least code is not 0
    e = embeddings(60)
    score = monosemanticity(codes_of(dense), e)
    expected = [by_a_double_loop(dense[:, latent], e) for latent in range(7)]
    np.testing.assert_allclose(score.all_inputs, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        monosemanticity(codes_of(dense, block=23), [e[:11], e[11:50], e[50:]]).all_inputs,
        expected,
        rtol=0,
        atol=1e-12,
    )


def test_the_variant_of_16_inputs_is_the_double_loop_over_these_alone() -> None:
    dense, e = sparse_matrix(60, 7, share=0.6), embeddings(60)
    dense += np.where(dense > 0, np.arange(60)[:, None] / 1024, 0)  # no ties
    dense[:, 2] = np.where(np.arange(60) < 9, dense[:, 2], 0)  # fires on fewer than 16
    score = monosemanticity(codes_of(dense), e)
    for latent in range(7):
        top = np.argsort(-dense[:, latent], kind="stable")[:16]
        expected = by_a_double_loop(dense[top, latent], e[top])
        assert score.top_16[latent] == pytest.approx(expected, abs=1e-12)


def test_latents_made_by_hand_reach_one_and_zero() -> None:
    # Inputs 0 and 1 look the same; 2 and 3 have nothing in common.
    e = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 1, 0], [0, 0, 3]])
    dense = np.array([[1.0, 0], [0.5, 0], [0, 2], [0, 1]])
    score = monosemanticity(codes_of(dense), e)
    np.testing.assert_allclose(score.all_inputs, [1.0, 0.0], rtol=0, atol=1e-15)


def test_dead_latents_and_those_of_one_input_have_no_score_and_count_as_zero_if_asked() -> None:
    e = torch.tensor([[1.0, 0], [1.0, 0], [0, 1]])
    dense = np.array([[1.0, 0, 3, 2], [0.5, 0, 0, 2], [0, 0, 0, 2]])
    score = monosemanticity(codes_of(dense), e)
    assert score.all_inputs[0] == pytest.approx(1.0, abs=1e-15)
    assert np.isnan(score.all_inputs[1:]).all()  # dead, of one input, and the same on all
    assert np.isnan(score.top_16[1:]).all()
    assert score.mean == pytest.approx(1.0, abs=1e-15)
    assert score.mean_with_dead_as_zero == pytest.approx(0.25, abs=1e-15)
    assert score.is_live.tolist() == [True, False, True, True]
    assert str(score) == (
        "monosemanticity 1.000 on average over 1 latents that have a score, of 4 (0.250 if the others count as 0; "
        "0.333 by chance)"
    )
    assert monosemanticity(codes_of(dense[:, 1:2]), e).mean is None


def test_by_chance_is_the_mean_score_over_embeddings_exchanged_between_inputs() -> None:
    e, dense = embeddings(9) + 0.5, sparse_matrix(9, 3, share=0.6)
    score = monosemanticity(codes_of(dense), e)
    unit = (e / e.norm(dim=1, keepdim=True)).double().numpy()
    cosines = [unit[i] @ unit[j] for i in range(9) for j in range(i)]
    assert score.by_chance == pytest.approx(np.mean(cosines), abs=1e-12)
    assert score.by_chance is not None
    chance = np.random.default_rng(0)
    mixed = [monosemanticity(codes_of(dense), e[chance.permutation(9)]).all_inputs for _ in range(400)]
    means, spread = np.mean(mixed, axis=0).tolist(), float(np.std(mixed))
    assert means == pytest.approx([score.by_chance] * 3, abs=0.2 * spread)
    assert monosemanticity(codes_of(dense[:1]), e[:1]).by_chance is None


def test_what_is_written_has_none_where_there_is_no_score() -> None:
    score = monosemanticity(codes_of(np.array([[1.0, 0], [0.5, 0], [0.25, 0]])), embeddings(3))
    held = json.loads(json.dumps(score.to_dict()))
    assert held["all_inputs"] == [float(score.all_inputs[0]), None]
    assert (held["scored"], held["live"], held["fired"]) == (1, 1, [3, 0])
    assert held["mean_top_16"] == pytest.approx(float(score.top_16[0]))
    assert score.columns()["latent"] == [0, 1]


def test_inputs_may_be_documents() -> None:
    documents, dense = np.repeat(np.arange(12), 5), sparse_matrix(60, 4)
    largest = dense.reshape(12, 5, 4).max(axis=1)
    score = monosemanticity(pool_codes(codes_of(dense, documents)), embeddings(12))
    expected = [by_a_double_loop(largest[:, latent], embeddings(12)) for latent in range(4)]
    np.testing.assert_allclose(score.all_inputs, expected, rtol=0, atol=1e-12)


def test_bad_embeddings_are_one_clear_line() -> None:
    codes = codes_of(sparse_matrix(20, 3))
    with pytest.raises(InputError, match="expected a row for each input of the codes, got 19"):
        monosemanticity(codes, embeddings(19))
    with pytest.raises(InputError, match="got more; are they of another source"):
        monosemanticity(codes, embeddings(21))
    e = embeddings(20)
    e[13] = 0
    with pytest.raises(InputError, match="rows that are not zero, got another one for input 13"):
        monosemanticity(codes, e)
