"""A store on disk: a sample from all its shards, and births for all its tokens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import autopsae
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.passes import spread_over
from autopsae.statistics import groups
from autopsae.statistics.collect import collect
from autopsae.statistics.groups import Groups

SHARDS, EACH, D_IN = 5, 1200, 12


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, in each of which the first dimension holds the place of the token in the store."""
    folder = tmp_path_factory.mktemp("store")
    generator = torch.Generator().manual_seed(0)
    tokens = gaussian_tokens(SHARDS * EACH, D_IN, gamma=2.0, spectrum=1.0, generator=generator)
    tokens[:, 0] = torch.arange(len(tokens)) / len(tokens)
    for number, shard in enumerate(tokens.split(EACH)):
        save_file({"layer": shard.clone()}, folder / f"shard-{number:05d}.safetensors")
    return folder


def test_the_sample_comes_from_all_shards_in_equal_shares(store: Path) -> None:
    layer = autopsae.open_activations(store).take(1000)
    statistics = collect(layer, sample_tokens=500)
    places = (statistics.sample[:, 0] * SHARDS * EACH).round().long()
    assert statistics.tokens == 1000
    assert len(set(places.tolist())) == 500
    # 100 of each shard on average, with a standard deviation of 8.9.
    shares = torch.bincount(places // EACH, minlength=SHARDS)
    assert shares.min() >= 65
    assert shares.max() <= 135


def test_births_are_estimated_for_the_whole_store_and_lie_near_its_count(store: Path) -> None:
    whole = autopsae.open_activations(store)
    settings = {"d_sae": 512, "k": 16}
    counted = autopsae.diagnose(whole, **settings)  # type: ignore[arg-type]
    some = autopsae.diagnose(whole.take(1500), exact=False, **settings)  # type: ignore[arg-type]
    assert some.tokens == 1500
    for name, birth in some.birth.items():
        assert birth.tokens == counted.birth[name].tokens == SHARDS * EACH
        assert birth.dead_interval is not None
        low, high = birth.dead_interval
        assert low - 0.01 <= counted.birth[name].dead <= high + 0.01, name
    # The closed form is compared with them, so it is for as many tokens.
    assert some.predicted.dead == pytest.approx(counted.predicted.dead, abs=0.03)
    # On those 1,500 tokens alone more are dead.
    assert autopsae.diagnose(whole.take(1500), **settings).birth["none"].dead > some.birth["none"].dead  # type: ignore[arg-type]


def test_an_exact_diagnosis_counts_on_the_tokens_that_were_taken(store: Path) -> None:
    counted = autopsae.diagnose(autopsae.open_activations(store).take(1500), d_sae=64, k=4)
    assert {birth.tokens for birth in counted.birth.values()} == {1500}


def test_documents_are_assumed_as_in_a_sample_of_the_whole_store(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[int] = []

    def sample_groups(sample: torch.Tensor, documents: object, stream_tokens: int) -> Groups:
        spans.append(stream_tokens)
        return groups.sample_groups(sample, None, stream_tokens)

    monkeypatch.setattr("autopsae.diagnosis.judge.sample_groups", sample_groups)
    whole = autopsae.open_activations(store)
    autopsae.diagnose(whole.take(1500), d_sae=64, k=4, exact=False)
    autopsae.diagnose(whole, d_sae=64, k=4, exact=False)
    assert spans == [SHARDS * EACH] * 2


def test_tokens_are_spread_over_the_files_or_over_what_a_split_left(store: Path) -> None:
    whole = autopsae.open_activations(store)
    rest, held = whole.split(600)
    assert spread_over(whole) == spread_over(whole.take(10)) == spread_over(held) == SHARDS * EACH
    assert spread_over(rest) == SHARDS * EACH - 600
    assert spread_over(torch.ones(5, 2)) is None


def test_what_will_be_read_and_held_is_said_before_anything_is_read(store: Path) -> None:
    told: list[str] = []

    class Unread:
        tokens, d_in = 700, D_IN

        def __iter__(self) -> Iterator[torch.Tensor]:
            assert told
            raise InputError("is read")

    layers = {"one": autopsae.open_activations(store).take(1000)}
    autopsae.survey(layers, d_sae=64, k=4, exact=False, announce=told.append)
    assert told[0].startswith(
        "1 layer, 1,000 tokens, spread over all 6,000; a sample of at most 4,096 tokens of each layer; up to "
    )
    assert told[0].endswith("; no activations are written")
    told.clear()
    with pytest.raises(InputError, match="layer 'x': is read"):
        autopsae.survey({"x": Unread()}, d_sae=64, k=4, announce=told.append)
