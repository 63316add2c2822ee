"""Networks that read sequences of letters: proteins and DNA."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autopsae.arrays import InputError
from autopsae.models.network import Network
from autopsae.words import show

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
"""The twenty that every network of proteins knows."""
NUCLEOTIDES = "ACGT"
AMBIGUOUS = "RYSWKMBDHVNX"
"""Letters of DNA that stand for several nucleotides, or for one that is not known."""

_TELLING = 100
"""Letters, all of them nucleotides, from which on a record is taken for DNA: of random proteins of this length, one
in 10^50 has no other letters.
"""


@dataclass(frozen=True, kw_only=True)
class Letters:
    """How a network writes letters as numbers."""

    ids: Mapping[str, int]
    """Capital letter -> id."""
    unknown: int
    """The id of every other letter; -1 in an alphabet that is one-hot."""
    before: tuple[int, ...] = ()
    """Ids in front of each piece."""
    after: tuple[int, ...] = ()
    """Ids behind each piece."""
    pad: int = 0
    """The id that fills short pieces, which the attention mask leaves out."""
    one_hot: bool = False
    """The network reads rows with a one at the letter's id, all zero for an unknown letter, instead of ids."""
    longest: int | None = None
    """Tokens that the network can read at once, those before and after included; None for any number."""


class SequenceNetwork(Network):
    """A network that reads a token for each letter. Records are cut into pieces of at most `context` letters.

    A letter that the network does not know gets its unknown id, whatever letter it is; small letters are read as
    capital ones. A piece without any letter that the network knows (a gap in a genome) is left out.
    """

    def __init__(self, name: str, model: nn.Module, *, letters: Letters, points: Sequence[str] = ()) -> None:
        """letters: how the network writes them; points: see `Network`."""
        super().__init__(name, model, points=points)
        self.letters = letters
        if self._most is not None:
            self.default_context = min(self.default_context, self._most)

    def pieces(self, document: Any, where: str, context: int) -> list[Any]:
        """Strings of at most `context` letters.

        Raises InputError for a context that the network cannot read, for an empty record, for one with anything but
        letters, for one of another kind (DNA for a protein, a protein for DNA), and where the network knows no
        letter of it.
        """
        self._check_context(context)
        sequence = self._read(document, where)
        cut = [sequence[start : start + context] for start in range(0, len(sequence), context)]
        known = [piece for piece in cut if not self.letters.ids.keys().isdisjoint(piece)]
        if not known:
            raise InputError(
                f"{where}: expected letters that {self.name} knows ({''.join(self.letters.ids)}), got "
                f"{show(sequence, 30)}; leave it out"
            )
        return known

    def size(self, piece: Any, context: int) -> int:
        """Its letters, and the ids before and after them."""
        return len(piece) + self._specials

    def batch(self, pieces: Sequence[Any], context: int) -> dict[str, Any]:
        """{"input_ids": [pieces, longest], "attention_mask"}; one-hot letters are "one_hot", [pieces, longest,
        letters], in place of the ids.
        """
        of = self.letters
        rows = [[*of.before, *(of.ids.get(letter, of.unknown) for letter in piece), *of.after] for piece in pieces]
        longest = max(map(len, rows))
        fill = of.unknown if of.one_hot else of.pad
        ids = torch.tensor([row + [fill] * (longest - len(row)) for row in rows], device="cpu")
        lengths = torch.tensor([len(row) for row in rows], device="cpu")
        mask = (torch.arange(longest, device="cpu") < lengths[:, None]).long()
        if not of.one_hot:
            return {"input_ids": ids, "attention_mask": mask}
        dtype = next(weight.dtype for weight in self.model.parameters())
        columns = torch.arange(1 + max(of.ids.values()), device="cpu")
        return {"one_hot": (ids[..., None] == columns).to(dtype), "attention_mask": mask}

    @property
    def _specials(self) -> int:
        return len(self.letters.before) + len(self.letters.after)

    @property
    def _most(self) -> int | None:
        """Letters of a piece at most; None for any number."""
        return None if self.letters.longest is None else self.letters.longest - self._specials

    def _check_context(self, context: int) -> None:
        if context < 1 or (self._most is not None and context > self._most):
            to = "or more" if self._most is None else f"to {self._most:,}"
            raise InputError(f"context: expected 1 {to} letters for {self.name}, got {context:,}")

    def _read(self, document: Any, where: str) -> str:
        if not isinstance(document, str):
            raise InputError(f"{where}: expected a string of letters, got {type(document).__name__}")
        sequence = document.upper()
        if not sequence:
            raise InputError(f"{where}: expected a sequence, got an empty one; leave it out")
        self._check_kind(sequence, where)
        return sequence

    @abstractmethod
    def _check_kind(self, sequence: str, where: str) -> None:
        """InputError for a record of another kind."""


class ProteinNetwork(SequenceNetwork):
    """A `SequenceNetwork` that reads proteins."""

    modality = "protein"
    default_context = 254

    def _check_kind(self, sequence: str, where: str) -> None:
        if not (sequence.isascii() and sequence.replace("*", "").isalpha()):
            raise InputError(f"{where}: expected amino acids, got {show(sequence, 30)}; is it a protein?")
        if len(sequence) >= _TELLING and not set(sequence) - set(f"{NUCLEOTIDES}UN"):
            raise InputError(
                f"{where}: expected a protein for {self.name}, got {len(sequence):,} letters that are all of "
                f"{NUCLEOTIDES}UN, which is DNA; pass its translation"
            )


class DnaNetwork(SequenceNetwork):
    """A `SequenceNetwork` that reads DNA; U (RNA) is read as T."""

    modality = "dna"
    default_context = 5000

    def _check_kind(self, sequence: str, where: str) -> None:
        if other := set(sequence) - set(f"{NUCLEOTIDES}U{AMBIGUOUS}"):
            raise InputError(
                f"{where}: expected DNA for {self.name}, got {show(min(other))}, which stands for no nucleotide; "
                "pass the DNA sequence"
            )
