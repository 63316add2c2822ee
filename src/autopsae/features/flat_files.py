"""The feature tables of Swiss-Prot and EMBL flat files as annotations. Biopython reads them (`autopsae[bio]`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations
from autopsae.models.records import records_in
from autopsae.words import printable

RESIDUES = frozenset(
    {"ACT_SITE", "BINDING", "CARBOHYD", "DISULFID", "LIPID", "METAL", "MOD_RES", "CROSSLNK", "SITE"}
)
"""Features of single residues, whose recall is counted by residue (InterPLM); the others are domains."""
BONDS = frozenset({"DISULFID", "CROSSLNK"})
"""Features whose two ends are the residues that are bound; those between them are not."""
NOT_FEATURES = frozenset({"CHAIN", "CONFLICT", "INIT_MET", "MUTAGEN", "VAR_SEQ", "VARIANT", "source"})
"""Kinds that say nothing of what a residue or base is: the whole chain, and how sequences differ."""

_EVIDENCE = frozenset({"By similarity", "Potential", "Probable"})


def flat_file_annotations(path: str | Path, *, notes: bool = True) -> Annotations:
    """The features of a Swiss-Prot or EMBL flat file, which may be compressed, in letters of its sequences.
    Document n is its record n, from 0, as `sequences_in` reads them.

    A concept is a kind of feature ("TRANSMEM", "exon"), and, with notes, a kind with what its note says first
    ("DOMAIN: SH3"). Of a bond, only the two ends have the concept. A position that is not known ("?") is left out,
    and so are kinds in NOT_FEATURES, parts on other records, and parts beyond the sequence.

    Raises InputError as `sequences_in`, for another format, and for a file without such a feature.
    """
    path = Path(path)
    rows = list[tuple[int, int, int, str]]()
    kinds = set[str]()
    for number, (kind, record) in enumerate(records_in(path)):
        if kind == "fasta":
            raise InputError(f"{path}: expected a Swiss-Prot or EMBL flat file, got FASTA, which has no features")
        length = len(record)
        for feature in record.features:
            if feature.type in NOT_FEATURES:
                continue
            kinds.add(kind)
            for start, end in _spans(feature):
                if 0 <= start < end <= length:
                    rows += [(number, start, end, concept) for concept in _concepts(feature, notes)]
    if not rows:
        raise InputError(f"{path}: expected features with positions, got none")
    concepts = {row[3] for row in rows}
    return Annotations.of(rows, domains=[name for name in concepts if name.split(":")[0] not in RESIDUES])


def _spans(feature: Any) -> Iterator[tuple[int, int]]:
    for part in getattr(feature.location, "parts", []):
        if part.ref is not None:
            continue
        try:
            start, end = int(part.start), int(part.end)
        except TypeError:  # an unknown position is no number
            continue
        if feature.type in BONDS and end - start > 1:
            yield from ((start, start + 1), (end - 1, end))
        else:
            yield start, end


def _concepts(feature: Any, notes: bool) -> list[str]:
    kind = printable(feature.type, 60)
    note = feature.qualifiers.get("note") or feature.qualifiers.get("description") or ""
    text = (note[0] if isinstance(note, list) else note).split(";")[0].split("(")[0].strip(" .")
    return [kind, f"{kind}: {printable(text, 60)}"] if notes and text and text not in _EVIDENCE else [kind]
