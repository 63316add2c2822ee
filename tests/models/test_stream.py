"""Statistics of all layers in one run of a network."""

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.models import NetworkBatches, choose_pieces, collect_layers, run_network
from autopsae.models.stream import BLOCK
from autopsae.statistics.collect import collect
from tests.models.words import Words, tokens_of

pytestmark = pytest.mark.quick

TEXTS = ["the quick brown fox", "jumps", "over the lazy dog and then some"]


def batches(network: Words, tokens: int, batch_size: int = 2) -> NetworkBatches:
    pieces = choose_pieces(network, TEXTS, tokens=tokens, context=8)
    return NetworkBatches(network=network, pieces=pieces, points=network.points, context=8, batch_size=batch_size)


def test_every_layer_has_the_statistics_of_its_tokens_without_padding() -> None:
    network = Words()
    read = batches(network, 1000)
    found = dict(collect_layers(run_network(read, tokens=1000)))
    assert [*found] == ["embedding", "linear"]
    expected = torch.cat([tokens_of(network, piece.content) for piece in read.pieces])
    assert found["linear"].tokens == len(expected) == sum(map(len, TEXTS))
    torch.testing.assert_close(found["linear"].sample.float(), expected)
    once = collect(expected)
    torch.testing.assert_close(found["linear"].raw.covariance, once.raw.covariance)
    torch.testing.assert_close(found["linear"].normed.mean, once.normed.mean)


def test_the_network_is_run_once_for_each_batch_and_no_longer_than_is_wanted() -> None:
    network = Words()
    outputs = list(run_network(batches(network, 1000, batch_size=3), tokens=30))
    assert sum(len(output["linear"]) for output in outputs) == 30
    assert network.model.runs == len(outputs) == 2


def test_blocks_do_not_change_the_statistics() -> None:
    x = torch.randn(3 * BLOCK + 17, 8, generator=torch.Generator().manual_seed(0)) + 5
    small = dict(collect_layers({"x": part} for part in x.split(100)))["x"]
    once = collect(x)
    torch.testing.assert_close(small.raw.covariance, once.raw.covariance, rtol=1e-10, atol=1e-10)
    assert torch.equal(small.sample, once.sample)
    assert small.rows.repeats() == once.rows.repeats()


def test_a_bad_token_is_refused_with_the_name_of_its_layer() -> None:
    x = torch.ones(50, 8)
    x[7, 3] = torch.inf
    with pytest.raises(InputError, match=r"layer .h7.: .*inf"):
        dict(collect_layers([{"h7": x}]))
    with pytest.raises(InputError, match="expected at least one token"):
        dict(collect_layers([]))
