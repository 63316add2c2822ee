import numpy as np
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.statistics.groups import (
    CORRELATION,
    DOCUMENT,
    GROUPS,
    directions,
    near_duplicates,
    neighbour_similarity,
    sample_groups,
)


def tokens(n: int, d_in: int = 32) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(0))


def test_a_group_is_whole_documents_and_groups_are_of_about_one_size() -> None:
    documents = np.random.default_rng(0).integers(0, 100, 4000)
    [group] = sample_groups(tokens(4000), documents).guesses
    for document in range(100):
        assert len(group[torch.from_numpy(documents == document)].unique()) == 1
    sizes = torch.bincount(group)
    assert len(sizes) == GROUPS
    assert int(sizes.max()) < 1.2 * int(sizes.min())


def test_the_order_and_the_names_of_documents_are_of_no_matter() -> None:
    documents = torch.arange(800) // 40
    order = torch.randperm(800, generator=torch.Generator().manual_seed(1))
    [group], [shuffled] = (sample_groups(tokens(800), d).guesses for d in (documents, 7 * documents[order] + 3))
    assert torch.equal(group[order], shuffled)


def test_few_documents_are_a_group_each() -> None:
    [group] = sample_groups(tokens(90), torch.arange(90) // 30).guesses
    assert torch.equal(torch.bincount(group), torch.tensor([30, 30, 30]))


@pytest.mark.parametrize("documents", [None, torch.zeros(200, dtype=torch.long)], ids=["unknown", "one document"])
def test_where_documents_are_unknown_stretches_and_near_duplicates_are_guessed(
    documents: torch.Tensor | None,
) -> None:
    x = tokens(100).repeat(2, 1)  # token i is that of i + 100
    stretches, clusters = sample_groups(x, documents).guesses
    assert torch.equal(stretches, torch.arange(200) * GROUPS // 200)
    assert torch.equal(clusters[:100], clusters[100:])


@pytest.mark.parametrize("d_in", [32, 400])
def test_near_duplicates_are_clustered_and_others_are_not(d_in: int) -> None:
    x = tokens(60, d_in)
    cluster = near_duplicates(directions(torch.cat([x, x + 0.2 * tokens(60, d_in).flip(0), 1.1 * x])))
    assert torch.equal(cluster[:60], cluster[60:120])
    assert torch.equal(cluster[:60], cluster[120:])
    assert len(cluster.unique()) == 60
    assert len(near_duplicates(directions(x)).unique()) == 60


def of_documents(number: int, n: int = 2048) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens in the order of their documents, their documents): they share four fifths of their variance."""
    chance = torch.Generator().manual_seed(1)
    document = torch.arange(n) * number // n
    return 2 * torch.randn(number, 32, generator=chance)[document] + torch.randn(n, 32, generator=chance), document


def test_where_the_order_says_nothing_documents_of_512_tokens_are_assumed() -> None:
    x, documents = of_documents(16)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert sample_groups(x, None).least_effect == 1  # the order tells
    assert sample_groups(x[order], documents[order]).least_effect == 1
    assert sample_groups(x[order], None).least_effect == 1 + CORRELATION * (DOCUMENT - 1)
    # One token in four is in the sample, so a quarter of the tokens of each document.
    assert sample_groups(x[order], None, 4 * len(x)).least_effect == 1 + CORRELATION * (DOCUMENT / 4 - 1)


@pytest.mark.parametrize(("stream", "assumed"), [(2048 * DOCUMENT - 1, True), (2048 * DOCUMENT, False)])
def test_a_sample_of_at_most_one_token_of_each_document_counts_as_independent(stream: int, assumed: bool) -> None:
    x, _ = of_documents(16)
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    assert (sample_groups(shuffled, None, stream).least_effect > 1) == assumed


@pytest.mark.parametrize("d_in", [2, 32, 400])
def test_independent_tokens_are_told_from_those_of_a_few_kinds(d_in: int) -> None:
    x = tokens(2048, d_in) * torch.logspace(0, -1, d_in) + 3
    assert abs(neighbour_similarity(directions(x))) < 0.05
    assert sample_groups(x, None).least_effect == 1
    if d_in > 2:  # forty kinds on a circle are everywhere
        kinds = x[:40].repeat(52, 1)[torch.randperm(2080, generator=torch.Generator().manual_seed(0))]
        assert neighbour_similarity(directions(kinds)) > 0.99


def test_one_direction_or_none_says_nothing_of_neighbours() -> None:
    assert neighbour_similarity(directions(tokens(100, 1))) == 0
    assert neighbour_similarity(directions(torch.ones(100, 5))) == 0


def test_documents_that_do_not_fit_the_tokens_are_refused() -> None:
    with pytest.raises(InputError, match=r"a whole number for each of 50 tokens, got int64 of shape \(49,\)"):
        sample_groups(tokens(50), np.arange(49))
    with pytest.raises(InputError, match=r"whole number for each of 50 tokens, got float32"):
        sample_groups(tokens(50), np.ones(50, np.float32))
