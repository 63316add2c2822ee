"""What became of each latent of an SAE on given tokens, why, and what would bring the dead ones back."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens
from autopsae.diagnosis.diagnose import LR, STEPS
from autopsae.diagnosis.finding import Finding
from autopsae.evaluation.advice import LIBRARIES, advice
from autopsae.evaluation.births import likely_births
from autopsae.evaluation.causes import CAUSES, causes, counterfactuals
from autopsae.evaluation.space import Space, margins, shift_to
from autopsae.modules import evaluating
from autopsae.progress import Progress, tell_progress
from autopsae.sae.death import Census, Fates
from autopsae.sae.model import SAE
from autopsae.tables import frame, save_table

FATES = ("alive", "rare", "always_on", "dead_by_relu", "dead_by_topk")
"""The names of fates, by number."""

RARE = 1e-4
"""A latent that fires on a smaller share of the tokens is rare."""

ALWAYS = 0.9
"""One that fires on at least this share is always on."""

COLUMNS: tuple[str, ...] = ("latent", "fate", "cause", "fired", "rate", "max_pre", "margin", "shift", "signal")
COLUMNS += ("variance_share", "alignment", "tied", "travel", "reachable", "wakes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Autopsy:
    """An SAE's latents on some tokens. Lengths are in the SAE's units (`SAE.enter`).

    pre = shift + signal about the tokens' centre m, their geometric median: shift = w . (m - b_dec) + b_enc, and
    signal is the standard deviation of w . y over tokens that are not stray.
    """

    sparsity: str
    layer_norm: bool
    """Whether the SAE normalises every token; the centre is then one of normalised tokens."""
    tokens: int
    d_in: int
    lr: float
    steps: int
    rare: float
    strays: float
    """Share of tokens of over ten times the median norm."""
    repeated: float
    """Share of the tokens that are the most frequent vector, such as padding."""
    center: Float[Tensor, "d_in"]
    fired: Int[Tensor, "d_sae"]
    fate: Int[Tensor, "d_sae"]
    """Numbers in FATES."""
    cause: Int[Tensor, "d_sae"]
    """Numbers in CAUSES."""
    max_pre: Float[Tensor, "d_sae"]
    """Largest pre-activation."""
    margin: Float[Tensor, "d_sae"]
    """Largest difference of the pre-activation and what it has to exceed; negative for the dead."""
    shift: Float[Tensor, "d_sae"]
    signal: Float[Tensor, "d_sae"]
    variance_share: Float[Tensor, "d_sae"]
    """Variance along the unit row over that along a typical direction."""
    alignment: Float[Tensor, "d_sae"]
    """Cosine of the row and m - b_dec; 0 where one of them is 0."""
    tied: Float[Tensor, "d_sae"]
    """Cosine of encoder and decoder row; 1 at birth."""
    travel: Float[Tensor, "d_sae"]
    """How far some coordinate of b_dec has to move, at least, before the latent is positive: -max_pre / ||w||_1,
    infinite for a row of zeros."""
    wakes: Bool[Tensor, "d_sae"]
    """Dead, and would fire if it were re-centred and everything else stayed as it is (`recentre`)."""
    written_by: str
    """The library that wrote the SAE, as `format_of` names it: the advice is a call for it."""
    prescription: str | None
    """Where a prescription is written (`fresh_start`), without suffix, for the advice; None where none is."""

    @property
    def d_sae(self) -> int:
        return len(self.fired)

    @property
    def is_dead(self) -> Bool[Tensor, "d_sae"]:
        """Never fired."""
        return self.fired == 0

    @property
    def reachable(self) -> Bool[Tensor, "d_sae"]:
        """Training at `lr` for `steps` can move b_dec far enough: an Adam step moves a coordinate by about lr."""
        return self.travel <= self.lr * self.steps

    @property
    def fates(self) -> dict[str, int]:
        """Latents by fate, each in one; of those that fired, `alive` are neither rare nor always on."""
        return {name: int((self.fate == number).sum()) for number, name in enumerate(FATES)}

    @property
    def causes(self) -> dict[str, int]:
        """Dead latents by cause, each in one."""
        return {name: int((self.cause == number).sum()) for number, name in enumerate(CAUSES) if number}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What there is to do, cause by cause, where more than 1 % of the latents are concerned."""
        stuck = (self.fate == FATES.index("dead_by_relu")) & ~self.reachable
        return advice(
            self.causes,
            d_sae=self.d_sae,
            tokens=self.tokens,
            wakes=int(self.wakes.sum()),
            stuck=int(stuck.sum()),
            travel=float(self.travel[stuck].median()) if bool(stuck.any()) else None,
            reach=self.lr * self.steps,
            always_on=self.fates["always_on"],
            repeated=self.repeated,
            layer_norm=self.layer_norm,
            written_by=self.written_by,
            prescription=self.prescription,
        )

    def to_dict(self) -> dict[str, Any]:
        """Counts (n_...) and fractions for a JSON file. Here `n_alive` are all that fired, the rare and the
        always on among them; dead = dead_by_relu + dead_by_topk.
        """
        fates, out = self.fates, int((self.is_dead & ~self.reachable).sum())
        recovery = {"lr": self.lr, "steps": self.steps, "reach": self.lr * self.steps, "out_of_reach": out}
        return {
            "d_sae": self.d_sae,
            "d_in": self.d_in,
            "sparsity": self.sparsity,
            "written_by": self.written_by,
            "tokens": self.tokens,
            "n_alive": int((~self.is_dead).sum()),
            "n_dead": int(self.is_dead.sum()),
            **{f"n_{name}": number for name, number in fates.items() if name != "alive"},
            "dead": float(self.is_dead.double().mean()),
            **{name: fates[name] / self.d_sae for name in ("dead_by_relu", "dead_by_topk")},
            "causes": self.causes,
            "wake_on_recentring": int(self.wakes.sum()),
            "recovery": recovery,
            "rare_below": self.rare,
            "strays": self.strays,
            "repeated": self.repeated,
            "findings": [{**asdict(finding), "text": str(finding)} for finding in self.findings],
        }

    def columns(self) -> dict[str, list[Any]]:
        """The table: a list for each of COLUMNS, with an entry for each latent."""
        found: dict[str, list[Any]] = {
            "latent": list(range(self.d_sae)),
            "fate": [FATES[number] for number in self.fate.tolist()],
            "cause": [CAUSES[number] for number in self.cause.tolist()],
            "rate": (self.fired.double() / self.tokens).tolist(),
        }
        return {name: found[name] if name in found else getattr(self, name).tolist() for name in COLUMNS}

    def to_frame(self) -> Any:
        """The table as a pandas DataFrame. Raises InputError where pandas is missing."""
        return frame(self.columns())

    def save_table(self, path: str | Path) -> None:
        """Write a row per latent as .csv or .parquet, whole or not at all. Raises InputError as `check_table`."""
        save_table(self.columns(), path)


@torch.no_grad()
@whole_arguments("steps")
def autopsy(
    sae: SAE,
    tokens: Tokens,
    *,
    lr: float = LR,
    steps: int = STEPS,
    rare: float = RARE,
    written_by: str = "autopsae",
    prescription: str | None = None,
    progress: Progress | None = None,
) -> Autopsy:
    """The fate of each latent on raw tokens, and the cause of each death (`causes`).

    lr, steps: of a training by which it is judged whether b_dec can get far enough; rare: share of the tokens under
    which a latent that fires is rare; written_by: the library that wrote the SAE, as `format_of` names it, and
    prescription: where one is going to be written (`fresh_start`), without suffix, both for the advice alone;
    progress: told the tokens of the pass that counts, as "fates". The same tokens give the same result.

    Some passes over the tokens: three for their centre and spread or a few more, one to count, one more for causes
    if a latent is dead. Memory does not grow with their number.

    Raises InputError as `Space.of`, for lr or steps under zero, for `rare` outside [0, 1], and for a library that
    is not known.
    """
    if written_by not in LIBRARIES:
        raise InputError(f"autopsy: expected written_by of {', '.join(LIBRARIES)}, got {written_by!r}")
    if not (0 <= lr < torch.inf and 0 <= steps < torch.inf and 0 <= rare <= 1):
        raise InputError(
            f"autopsy: expected lr and steps of at least 0 and rare in [0, 1], got {lr:g}, {steps} and {rare:g}"
        )
    sae.check_finite("autopsy")
    with evaluating(sae):
        space = Space.of(sae, tokens)
        fates, max_pre, margin = _counted(sae, space, progress)
        W, signal = sae.W_enc, space.spread(sae.W_enc).to(sae.W_enc)
        away, size = (space.center - sae.b_dec.to(space.center)).to(W), W.norm(dim=1)
        share = (signal / size).square().nan_to_num() / max(space.typical_variance(), torch.finfo(W.dtype).tiny)
        cause, wakes = _why(sae, space, fates, signal=signal, share=share)
    return Autopsy(
        sparsity=sae.sparsity.name,
        layer_norm=sae.layer_norm,
        tokens=space.tokens,
        d_in=sae.d_in,
        lr=lr,
        steps=steps,
        rare=rare,
        strays=space.strays,
        repeated=space.repeated,
        center=space.center,
        fired=fates.fired,
        fate=_fate(fates, rare),
        cause=cause,
        max_pre=max_pre,
        margin=margin,
        shift=W @ away if sae.b_enc is None else W @ away + sae.b_enc,
        signal=signal,
        variance_share=share,
        alignment=cosine_similarity(W, away[None]),
        tied=cosine_similarity(W, sae.W_dec),
        travel=((-max_pre).clamp_min(0) / W.abs().sum(dim=1)).nan_to_num(nan=torch.inf, posinf=torch.inf),
        wakes=wakes,
        written_by=written_by,
        prescription=prescription,
    )


def _why(
    sae: SAE, space: Space, fates: Fates, *, signal: Float[Tensor, "d_sae"], share: Float[Tensor, "d_sae"]
) -> tuple[Int[Tensor, "d_sae"], Bool[Tensor, "d_sae"]]:
    """(the number in CAUSES of each latent's cause, the dead that wake if they are re-centred alone)"""
    if not fates.dead:
        return torch.zeros_like(fates.fired), torch.zeros_like(fates.positive)
    shift = shift_to(sae, space.center).to(sae.W_enc)
    births = likely_births(sae, signal, fired=fates.fired)
    what_if = counterfactuals(sae, space, births=births, shift=shift, share=share)
    measured = {"fired": fates.fired, "shift": shift, "signal": signal, "share": share}
    cause = causes(what_if, sae=sae, space=space, births=births, **measured)
    return cause, what_if.alone & (fates.fired == 0)


def _counted(
    sae: SAE, space: Space, progress: Progress | None
) -> tuple[Fates, Float[Tensor, "d_sae"], Float[Tensor, "d_sae"]]:
    """(what each latent did, its largest pre-activation, its largest margin)"""
    census = Census(sae.d_sae, sae.W_enc.device)
    largest, margin = (torch.full_like(sae.W_enc[:, 0], -torch.inf) for _ in range(2))
    for y in tell_progress(space.blocks(sae.W_enc), progress, "fates", space.tokens):
        census.see(sae.select(y))
        pre = sae.pre_activations(y)
        largest = largest.maximum(pre.amax(dim=0))
        margin = margin.maximum(margins(sae, pre).amax(dim=0))
    return census.fates(), largest, margin


def _fate(fates: Fates, rare: float) -> Int[Tensor, "d_sae"]:
    """The number in FATES of what each latent did."""
    rate = fates.fired.double() / fates.tokens
    found = torch.zeros_like(fates.fired)
    for name, holds in (
        ("rare", rate < rare),
        ("always_on", rate >= ALWAYS),
        ("dead_by_topk", fates.fired == 0),
        ("dead_by_relu", ~fates.positive),
    ):
        found[holds] = FATES.index(name)
    return found
