import numpy as np
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.statistics.groups import GROUPS, near_duplicates, sample_groups


def tokens(n: int, d_in: int = 32) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(0))


def test_a_group_is_whole_documents_and_groups_are_of_about_one_size() -> None:
    documents = np.random.default_rng(0).integers(0, 100, 4000)
    [group] = sample_groups(tokens(4000), documents)
    for document in range(100):
        assert len(group[torch.from_numpy(documents == document)].unique()) == 1
    sizes = torch.bincount(group)
    assert len(sizes) == GROUPS
    assert int(sizes.max()) < 1.2 * int(sizes.min())


def test_the_order_and_the_names_of_documents_are_of_no_matter() -> None:
    documents = torch.arange(800) // 40
    order = torch.randperm(800, generator=torch.Generator().manual_seed(1))
    [group], [shuffled] = (sample_groups(tokens(800), d) for d in (documents, 7 * documents[order] + 3))
    assert torch.equal(group[order], shuffled)


def test_few_documents_are_a_group_each() -> None:
    [group] = sample_groups(tokens(90), torch.arange(90) // 30)
    assert torch.equal(torch.bincount(group), torch.tensor([30, 30, 30]))


@pytest.mark.parametrize("documents", [None, torch.zeros(200, dtype=torch.long)], ids=["unknown", "one document"])
def test_where_documents_are_unknown_stretches_and_near_duplicates_are_guessed(
    documents: torch.Tensor | None,
) -> None:
    x = tokens(100).repeat(2, 1)  # token i is that of i + 100
    stretches, clusters = sample_groups(x, documents)
    assert torch.equal(stretches, torch.arange(200) * GROUPS // 200)
    assert torch.equal(clusters[:100], clusters[100:])


@pytest.mark.parametrize("d_in", [32, 400])
def test_near_duplicates_are_clustered_and_others_are_not(d_in: int) -> None:
    x = tokens(60, d_in)
    cluster = near_duplicates(torch.cat([x, x + 0.2 * tokens(60, d_in).flip(0), 1.1 * x]))
    assert torch.equal(cluster[:60], cluster[60:120])
    assert torch.equal(cluster[:60], cluster[120:])
    assert len(cluster.unique()) == 60
    assert len(near_duplicates(x).unique()) == 60


def test_documents_that_do_not_fit_the_tokens_are_refused() -> None:
    with pytest.raises(InputError, match=r"a whole number for each of 50 tokens, got torch.int64 of shape \(49,\)"):
        sample_groups(tokens(50), np.arange(49))
    with pytest.raises(InputError, match=r"whole number for each of 50 tokens, got torch.float32"):
        sample_groups(tokens(50), np.ones(50, np.float32))
