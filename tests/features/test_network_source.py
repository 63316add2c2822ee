"""Laws of the table of tokens: each token covers the letters that it was made of, in the order of the harvest."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autopsae.activations.harvest_text import harvest_text
from autopsae.activations.presets import load_model
from autopsae.arrays import InputError
from autopsae.features.controls import control_saes, neuron_sae, random_sae
from autopsae.features.network_source import NetworkSource, token_table
from autopsae.models import ImageNetwork, Letters, TextNetwork
from autopsae.models.sequences import ProteinNetwork
from autopsae.models.unirep import build_unirep
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import ReLU, TopK
from tests.activations.test_presets import WORDS, gpt2_folder
from tests.features.sources import small_sae
from tests.models.test_installable import tiny_unirep
from tests.models.test_sequences import protein
from tests.models.words import Words

TEXTS = [" ".join(WORDS[n] for n in some) for some in ([3, 4, 5, 6, 3], [4, 4], [6, 5, 4])]


def test_tokens_of_a_text_cover_its_words_and_the_harvest_has_them_in_the_same_order(tmp_path: Path) -> None:
    model = load_model(str(gpt2_folder(tmp_path / "model")))
    table = token_table(TextNetwork(model), TEXTS, context=4)
    harvested = harvest_text(model, TEXTS, tmp_path / "out", layers=["hs1"], context=4)["hs1"]
    np.testing.assert_array_equal(table.documents, harvested.documents)
    # A piece is the beginning token and three words.
    assert table.is_letter.tolist() == [
        False,
        True,
        True,
        True,
        False,
        True,
        True,
        *[False, True, True],
        False,
        True,
        True,
        True,
    ]
    for n in np.flatnonzero(table.is_letter):
        word = TEXTS[table.documents[n]][table.starts[n] : table.ends[n]]
        assert word == table.texts[n]
        assert word in WORDS
    source = NetworkSource(TextNetwork(model), TEXTS, point="hs1", context=4, batch_size=2)
    stored = torch.cat(list(harvested))
    for _ in range(2):
        torch.testing.assert_close(torch.cat(list(source)), stored)
    some = NetworkSource(TextNetwork(model), TEXTS, point="hs1", context=4, tokens=6)
    torch.testing.assert_close(torch.cat(list(some)), stored[:6])
    assert some.tokens == len(some.documents) == len(some.table) == 6


@pytest.mark.quick
def test_no_document_after_the_last_token_that_is_read_is_asked_for() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "MKTA"

    with pytest.raises(InputError, match="tokens: expected at least 1, got 0"):
        NetworkSource(unirep(), endless(), point="layers.1", tokens=0)
    source = NetworkSource(unirep(), endless(), point="layers.1", context=10, tokens=11)
    # A letter that begins each document: five tokens of it.
    assert source.documents.tolist() == [0] * 5 + [1] * 5 + [2]
    assert len(torch.cat(list(source))) == source.tokens == 11


@pytest.mark.quick
def test_tokens_of_a_protein_cover_a_residue_each_also_where_a_piece_is_left_out() -> None:
    table = token_table(protein(), ["MKTAYI", "AAXXXXKK"], context=2)
    letters = table.is_letter
    assert table.texts[1:3] == ("M", "K")
    assert letters.tolist() == [False, True, True, False] * 5  # two pieces of X are left out
    assert table.starts[letters].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 6, 7]
    assert table.documents[letters].tolist() == [0] * 6 + [1] * 4


def unirep() -> ProteinNetwork:
    ids = {letter: n for n, letter in enumerate("-MRHKDESTNQCUGPAVIFYWLO")}
    letters = Letters(ids=ids, unknown=23, before=(24,))
    return ProteinNetwork("tiny", build_unirep(tiny_unirep()).eval(), letters=letters, points=("layers.1",))


@pytest.mark.quick
def test_a_source_of_proteins_gives_the_layers_rows() -> None:
    source = NetworkSource(unirep(), ["MKTAY", "KK"], point="layers.1", context=10)
    [rows] = source
    assert rows.shape == (9, 6)
    assert source.table.texts == ("", *"MKTAY", "", *"KK")


@pytest.mark.quick
def test_tokens_of_an_image_are_its_patches_row_by_row_after_the_special_ones() -> None:
    pytest.importorskip("PIL", reason="needs the extra [images]")
    network = ImageNetwork("tiny", nn.Linear(1, 1), patch=4, special=2)
    table = token_table(network, [np.zeros((9, 12, 3), np.uint8)] * 2, context=8)
    assert table.texts[:6] == ("", "", "(0, 0) ", "(0, 1) ", "(1, 0) ", "(1, 1) ")
    assert table.starts[table.is_letter].tolist() == [0, 1, 2, 3] * 2


@pytest.mark.quick
def test_other_networks_and_points_are_refused() -> None:
    with pytest.raises(InputError, match="expected a network of texts, sequences or images, got Words"):
        token_table(Words(), ["abc"])
    with pytest.raises(InputError, match="unknown layer 'hs3'; near names: embedding, linear"):
        NetworkSource(Words(), ["abc"], point="hs3")
    with pytest.raises(InputError, match="expected at least one document that is not empty"):
        token_table(protein(), [])


# Controls


@pytest.mark.quick
def test_the_latents_of_neurons_are_the_neurons_on_both_sides_of_their_centre() -> None:
    x, center = torch.randn(50, 6), torch.randn(6, dtype=torch.float64)
    codes = neuron_sae(center).encode(x)
    away = x - center.float()
    torch.testing.assert_close(codes, torch.cat([away.relu(), (-away).relu()], dim=1))
    torch.testing.assert_close(neuron_sae(center)(x), x)
    assert (neuron_sae(center, sparsity=TopK(k=3)).encode(x) > 0).sum(dim=1).tolist() == [3] * 50


@pytest.mark.quick
def test_a_random_sae_has_the_size_the_space_and_the_sparsity_of_another_and_rows_of_its_own() -> None:
    sae = small_sae()
    control = random_sae(sae)
    assert (control.d_sae, control.d_in, control.sparsity) == (40, 12, TopK(k=5))
    assert torch.equal(control.b_dec, sae.b_dec)
    assert not torch.allclose(control.W_enc, sae.W_enc)
    torch.testing.assert_close(control.W_enc.norm(dim=1), torch.ones(40))
    assert torch.equal(control.W_enc, random_sae(sae).W_enc)
    assert not torch.equal(control.W_enc, random_sae(sae, seed=1).W_enc)
    free = type(sae)(W_enc=sae.W_enc, W_dec=sae.W_dec, b_dec=sae.b_dec, sparsity=ReLU())
    with pytest.raises(InputError, match="random_sae: expected k, as ReLU"):
        random_sae(free)
    assert random_sae(free, 7).sparsity == TopK(k=7)
    sae.fix_encoder_center()
    with torch.no_grad():
        sae.b_dec.add_(1)
    assert torch.equal(random_sae(sae).b_dec, sae.encoder_center)


@pytest.mark.quick
def test_controls_are_centred_at_the_tokens_that_count_and_as_sparse_as_the_sae_is_on_them() -> None:
    x = torch.randn(400, 12) + torch.arange(12.0)
    is_counted = np.arange(400) % 4 > 0
    x[::4] += 1000  # special tokens
    sae = small_sae(k=5)
    some = x[torch.from_numpy(is_counted)]
    free = type(sae)(W_enc=sae.W_enc, W_dec=sae.W_dec, b_dec=sae.b_dec, sparsity=ReLU()).eval()
    controls = control_saes(free, x, is_counted=is_counted, seed=3)
    assert [*controls] == ["neurons", "random rows"]
    torch.testing.assert_close(controls["neurons"].affine.center, some.mean(dim=0), rtol=1e-5, atol=1e-5)
    fires = (free.encode(some) > 0).sum(dim=1).double().mean()
    assert controls["random rows"].sparsity == TopK(k=round(float(fires)))
    torch.testing.assert_close(controls["random rows"].b_dec, some.mean(dim=0), rtol=1e-5, atol=1e-5)
    expected = random_sae(free, 5, center=some.mean(dim=0), seed=3)
    assert torch.equal(controls["random rows"].W_enc, expected.W_enc)


@pytest.mark.quick
def test_controls_of_an_sae_with_layer_norm_are_centred_where_its_tokens_are() -> None:
    """The mean of normalised tokens is not the normalised mean."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 32, generator=generator) * torch.linspace(0.2, 3, 32)
    sae = born(untouched(32), d_sae=128, sparsity=TopK(k=4), sample=x, layer_norm=True, generator=generator)
    control = control_saes(sae, x)["random rows"]
    y = sae.enter(x)[0]
    torch.testing.assert_close(control.b_dec, y.mean(dim=0), rtol=1e-4, atol=1e-4)
