"""The shift is named where a library's start kept latents silent, and not where a rate killed them."""

import pytest
from experiments.autopsy.shift import Case, examined, table


@pytest.mark.parametrize(
    ("architecture", "tokens", "lr"),
    [
        ("topk", "gaussian", 3e-4),
        ("topk", "features", 1e-3),
        ("topk", "features", 1e-2),
        ("batchtopk", "features", 1e-3),
        ("jumprelu", "features", 1e-2),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_shift_is_named_for_dead_latents_of_saelens_whose_rows_would_have_fired_from_the_median(
    architecture: str, tokens: str, lr: float, seed: int
) -> None:
    row = examined(
        Case(
            library="SAELens",
            architecture=architecture,
            start="zero",
            tokens=tokens,
            lr=lr,
            steps=60,
            seed=seed,
        )
    )
    assert row["would_have_fired"] > 50
    assert row["named"]["shift"] >= 0.95 * row["would_have_fired"]


@pytest.mark.parametrize("library", ["dictionary_learning", "sparsify"])
def test_the_shift_is_named_for_other_libraries_too(library: str) -> None:
    name = "topk" if library == "sparsify" else "standard"
    row = examined(
        Case(library=library, architecture=name, start="zero", tokens="features", lr=1e-3, steps=60, seed=2)
    )
    assert row["would_have_fired"] > 50
    assert row["named"]["shift"] >= 0.95 * row["would_have_fired"]


def test_a_rate_that_kills_from_the_median_is_not_the_shift() -> None:
    row = examined(
        Case(library="SAELens", architecture="topk", start="median", tokens="gaussian", lr=0.1, steps=100, seed=0)
    )
    assert row["would_have_fired"] > 50
    assert row["named"]["died_in_training"] >= 0.95 * row["would_have_fired"]
    assert f"| {row['would_have_fired']:,} | 0.0% | 0.0% |" in table([row])
