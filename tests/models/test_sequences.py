"""Laws of networks that read letters: a token for each, whatever is beside it, and no record of another kind."""

from typing import Any

import pytest
import torch
from torch import nn

from autopsae.arrays import InputError
from autopsae.models import DnaNetwork, Letters, ProteinNetwork
from autopsae.models.sequences import AMINO_ACIDS

pytestmark = pytest.mark.quick

IDS = {letter: 4 + number for number, letter in enumerate(AMINO_ACIDS)}
BASES = {"A": 0, "C": 1, "G": 2, "T": 3, "U": 3}


def protein(**changed: Any) -> ProteinNetwork:
    settings: dict[str, Any] = {"ids": IDS, "unknown": 3, "before": (0,), "after": (2,), "pad": 1, "longest": 12}
    return ProteinNetwork("tiny", nn.Linear(1, 1), letters=Letters(**{**settings, **changed}))


def dna() -> DnaNetwork:
    return DnaNetwork("tiny", nn.Linear(1, 1), letters=Letters(ids=BASES, unknown=-1, one_hot=True))


def test_pieces_are_the_record_cut_in_order() -> None:
    network = protein()
    assert network.pieces("MKTAYIAKQR", "one", 4) == ["MKTA", "YIAK", "QR"]
    assert [network.size(piece, 4) for piece in ["MKTA", "QR"]] == [6, 4]


def test_small_letters_and_unknown_ones_are_read() -> None:
    network = protein()
    [piece] = network.pieces("mkX", "one", 10)
    ids = network.batch([piece], 10)["input_ids"]
    assert ids.tolist() == [[0, IDS["M"], IDS["K"], 3, 2]]


def test_a_batch_is_padded_where_its_mask_says() -> None:
    network = protein()
    batch = network.batch(["MKT", "A"], 10)
    assert batch["input_ids"].tolist() == [[0, IDS["M"], IDS["K"], IDS["T"], 2], [0, IDS["A"], 2, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert int(batch["attention_mask"].sum()) == sum(network.size(piece, 10) for piece in ["MKT", "A"])


def test_one_hot_rows_are_zero_for_unknown_letters_and_padding() -> None:
    network = dna()
    batch = network.batch(["ACGTUN", "G"], 10)
    rows = batch["one_hot"]
    assert rows.shape == (2, 6, 4)
    assert torch.equal(rows[0, :4], torch.eye(4))
    assert rows[0, 4].tolist() == [0, 0, 0, 1]
    assert rows[0, 5].tolist() == [0, 0, 0, 0]
    assert rows[1, 0].tolist() == [0, 0, 1, 0]
    assert not rows[1, 1:].any()
    assert batch["attention_mask"].sum(dim=1).tolist() == [6, 1]


def test_pieces_without_a_known_letter_are_left_out() -> None:
    assert dna().pieces("NNNNNNNACGTNNNN", "one", 4) == ["NNNA", "CGTN"]


@pytest.mark.parametrize("context", [0, -1, 11])
def test_a_context_that_the_network_cannot_read_is_told(context: int) -> None:
    assert protein().pieces("M" * 11, "one", 10) == ["M" * 10, "M"]
    with pytest.raises(InputError, match=rf"context: expected 1 to 10 letters for tiny, got {context}"):
        protein().pieces("MKT", "one", context)


def test_without_a_context_a_piece_is_no_longer_than_the_network_can_read() -> None:
    assert protein().default_context == 10
    assert protein(longest=512).default_context == 254
    assert protein(longest=None).default_context == 254
    assert dna().default_context == 5000


def test_a_network_without_a_longest_piece_reads_any_context() -> None:
    assert dna().pieces("ACGT", "one", 10**6) == ["ACGT"]
    with pytest.raises(InputError, match="context: expected 1 or more letters for tiny, got 0"):
        dna().pieces("ACGT", "one", 0)


def test_dna_is_no_protein_from_a_hundred_letters_on() -> None:
    assert protein(longest=None).pieces("ACGTN" * 19, "one", 200) == ["ACGTN" * 19]
    assert protein(longest=None).pieces("ACGTN" * 20 + "M", "one", 200)
    with pytest.raises(
        InputError, match=r"one: expected a protein for tiny, got 100 letters .* which is DNA; pass"
    ):
        protein(longest=None).pieces("ACGTN" * 20, "one", 200)


@pytest.mark.parametrize(
    ("network", "document", "message"),
    [
        (protein(), "", "record 1: expected a sequence, got an empty one; leave it out"),
        (protein(), b"MKT", "record 1: expected a string of letters, got bytes"),
        (protein(), "MK-T", "record 1: expected amino acids, got 'MK-T'; is it a protein?"),
        (protein(), "XX*", r"record 1: expected letters that tiny knows \(ACDEF.*\), got 'XX\*'; leave it out"),
        (dna(), "ACGTE", "record 1: expected DNA for tiny, got 'E', which stands for no nucleotide; pass the DNA"),
        (dna(), "ACG T", "record 1: expected DNA for tiny, got ' '"),
        (dna(), "NNNN", r"record 1: expected letters that tiny knows \(ACGTU\), got 'NNNN'"),
    ],
)
def test_a_record_of_another_kind_is_named(network: Any, document: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network.pieces(document, "record 1", 10)
