"""What the members of a sweep see: streams of raw tokens, each read once, and each view of them computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.arrays import InputError, Mapped, Tokens
from autopsae.sae.model import SAE
from autopsae.training.config import TrainConfig
from autopsae.training.data import Place, Shuffled


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One SAE of a sweep, and how it is trained."""

    sae: SAE
    """Trained in place."""
    config: TrainConfig
    """How it is trained."""
    tokens: Tokens | None = None
    """Raw tokens of its own; None for those of the sweep."""
    shift: Float[Tensor, "d_in"] | None = None
    """Added to every raw token: layers of many gammas from one stream."""
    name: str = ""
    """For messages and folders; "" where it needs none."""


def shift_tokens(tokens: Tokens, shift: Float[Tensor, "d_in"]) -> Mapped:
    """Raw tokens with something added to each."""
    return Mapped(tokens, lambda x: x + shift.to(x), dtype=shift.dtype)


class Sources:
    """The batches of the members. Members with the same tokens, seed and buffer share a stream; those that also
    have the same affine map, LayerNorm and shift share what they see of it.
    """

    def __init__(self, members: Sequence[Member], tokens: Tokens | None, places: Sequence[Place] = ()) -> None:
        """places: where each stream goes on, from `places` of Sources of the same members.

        Raises InputError for a member without tokens, or with a shift of another width.
        """
        for member in members:
            if member.tokens is None and tokens is None:
                raise InputError(f"member {member.name!r}: expected tokens, of its own or of the sweep, got none")
            if member.shift is not None and member.shift.shape != (member.sae.d_in,):
                raise InputError(
                    f"member {member.name!r}: expected a shift of shape [d_in = {member.sae.d_in}], got "
                    f"{tuple(member.shift.shape)}"
                )
            if member.shift is not None and not bool(member.shift.isfinite().all()):
                raise InputError(
                    f"member {member.name!r}: expected a finite shift, got NaN or infinite values in it"
                )
        raw = [tokens if member.tokens is None else member.tokens for member in members]
        keys = [stream_key(member, tokens) for member in members]
        distinct = list(dict.fromkeys(keys))
        firsts = [keys.index(key) for key in distinct]
        given: Sequence[Place | None] = places or [None] * len(distinct)
        self._streams = [
            _stream(raw[first], members[first], place) for first, place in zip(firsts, given, strict=True)
        ]
        self._stream_of_key = dict(zip(distinct, self._streams, strict=True))
        self._d_in = members[0].sae.d_in
        self._group(list(members), keys)

    @property
    def places(self) -> list[Place]:
        """Where each stream is."""
        return [stream.place for stream in self._streams]

    @property
    def stream_of_member(self) -> list[int]:
        """Which of the `places` each member's stream is at; numbered as they come."""
        return [self._streams.index(self._stream_of_key[key]) for key in self._keys]

    def __next__(self) -> Float[Tensor, "views batch d_in"]:
        """The next batch of every view, in the SAEs' space. Raises InputError as `Shuffled`, and for tokens of
        another width than that of the SAEs.
        """
        batches = {id(stream): next(stream) for stream in self._streams}
        for x in batches.values():
            if x.shape[1] != self._d_in:
                raise InputError(f"expected tokens of width d_in = {self._d_in}, as the SAE has, got {x.shape[1]}")
        if len(self._streams) == 1 and self._plain:
            [x] = batches.values()
            y = x[None] + self._offset if self._moved else x[None]
            return y * self._scale if self._scaled else y
        return torch.stack([_enter(member, batches[id(stream)]) for member, stream in self._views])

    def keep(self, members: Sequence[Member], kept: Int[Tensor, "some"]) -> None:
        """Go on for these members alone, which are those at these places."""
        keys = [self._keys[m] for m in kept.tolist()]
        self._streams = [self._stream_of_key[key] for key in dict.fromkeys(keys)]
        self._group(list(members), keys)

    def _group(self, members: list[Member], keys: list[tuple[int, int, int]]) -> None:
        self._keys = keys
        self._views: list[tuple[Member, Shuffled]] = []
        of_member = []
        for member, key in zip(members, keys, strict=True):
            stream = self._stream_of_key[key]
            same = [v for v, (m, s) in enumerate(self._views) if s is stream and _see_the_same(m, member)]
            of_member.append(same[0] if same else len(self._views))
            if not same:
                self._views.append((member, stream))
        sae = members[0].sae
        self.of_member = torch.tensor(of_member, device=sae.W_enc.device)
        self._plain = all(m.sae.linear is None and not m.sae.layer_norm for m, _ in self._views)
        self._offset = torch.stack([_shift(m) - m.sae.center for m, _ in self._views])[:, None]
        self._scale = sae.W_enc.new_tensor([m.sae.scale for m, _ in self._views])[:, None, None]
        self._moved, self._scaled = bool(self._offset.any()), bool((self._scale != 1).any())


def _stream(tokens: Tokens | None, member: Member, place: Place | None) -> Shuffled:
    assert tokens is not None
    config, weight = member.config, member.sae.W_enc
    return Shuffled(
        tokens,
        config.batch_tokens,
        buffer_tokens=config.buffer_tokens,
        seed=config.seed,
        dtype=weight.dtype,
        device=weight.device,
        place=place,
    )


def _shift(member: Member) -> Float[Tensor, "d_in"]:
    return torch.zeros_like(member.sae.center) if member.shift is None else member.shift.to(member.sae.center)


def _enter(member: Member, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
    return member.sae.enter(x if member.shift is None else x + _shift(member))[0]


def see_one_view(members: Sequence[Member]) -> bool:
    """Do all see the same of one stream, so that it is computed once?"""
    first = members[0]
    return all(stream_key(m) == stream_key(first) and _see_the_same(m, first) for m in members)


def stream_key(member: Member, tokens: Tokens | None = None) -> tuple[int, int, int]:
    """Members with the same key see one stream. tokens: for members that have none of their own."""
    of = tokens if member.tokens is None else member.tokens
    return id(of), member.config.seed, member.config.buffer_tokens


def _see_the_same(a: Member, b: Member) -> bool:
    def equal(s: Tensor | None, t: Tensor | None) -> bool:
        return torch.equal(s, t) if s is not None and t is not None else s is t

    maps = equal(a.sae.center, b.sae.center) and equal(a.sae.linear, b.sae.linear)
    settings = (a.sae.scale, a.sae.layer_norm) == (b.sae.scale, b.sae.layer_norm)
    return settings and maps and torch.equal(_shift(a), _shift(b))
