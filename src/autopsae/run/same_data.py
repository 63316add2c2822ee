"""Which tokens a run is trained and measured on, so that it does not go on, or end, with others."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autopsae.arrays import Tokens
from autopsae.kinds import Kind, digest, fields, nothing_or
from autopsae.passes import Digest, check_same, digest_of, known_digest

KIND: Kind = fields({"training": nothing_or(digest), "held_out": nothing_or(digest)})
"""What `digests_of` returns, as JSON."""


def digests_of(training: Tokens, held_out: Tokens) -> dict[str, Any]:
    """The digests of both, as far as they are known without another pass: those of a matrix, and of what has been
    read to its end (`passes.known_digest`).
    """
    known = {"training": known_digest(training), "held_out": known_digest(held_out)}
    return {name: one and asdict(one) for name, one in known.items()}


def check_described(before: Mapping[str, Any], training: Tokens, held_out: Tokens) -> None:
    """InputError where a run goes on with other tokens than it began with. Training tokens that nobody has read to
    their end are compared as they are read (`training.data`).
    """
    now = {"training": known_digest(training), "held_out": digest_of(held_out)}
    for name, what in (("training", "to train on"), ("held_out", "that are held out")):
        was, current = before.get(name), now[name]
        if was is not None and current is not None:
            check_same(
                Digest(**was),
                current,
                expected=f"the activations {what} that the run began with",
                advice="pass those, or begin another run in a new folder",
            )
