"""From the options of `train` to the SAEs that are trained: every combination of what has several values."""

import warnings
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch

from autopsae.activations.store import Activations
from autopsae.arrays import InputError, Tokens
from autopsae.cli import firing
from autopsae.cli.options.train import Birth, Fit, Keep
from autopsae.defaults import K, Strays
from autopsae.diagnosis.prescribe import Prescription
from autopsae.passes import same_passes
from autopsae.remedies.remedy import Remedy
from autopsae.run.finished import Settings
from autopsae.run.folder import Entry
from autopsae.run.start import layer_normed, start_from, without_strays
from autopsae.run.verdict import resampling_until
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import SPARSITIES, Sparsity
from autopsae.statistics.collect import Statistics, collect
from autopsae.training.config import TrainConfig
from autopsae.training.objective import L1, L0Target
from autopsae.training.revival import AuxK, GhostGradients, Resampling
from autopsae.training.sources import Member


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a member of a sweep has of its own."""

    init: str
    alpha: float
    lr: float
    l1: float | None
    seed: int


def with_defaults(birth: Birth) -> Birth:
    """The options, with a value for all that has a default.

    Raises InputError for what would be given in vain: another start beside a prescription, an exponent or a rank
    for a start that has none, a setting that the sparsity does not have.
    """
    firing.sparsity_of(birth, also=("k",) if SPARSITIES[birth.sparsity].gated else ())
    given = [f"--{name}" for name in ("init", "alpha", "rank") if getattr(birth, name) not in ((), None)]
    if birth.prescription is not None and given:
        raise InputError(
            f"expected --prescription or {' and '.join(given)}, got both: a prescription is a start itself; leave "
            "one of them out"
        )
    inits = birth.init or ("median",)
    for name, start in (("alpha", "whiten"), ("rank", "asi")):
        if f"--{name}" in given and start not in inits:
            raise InputError(f"--{name}: expected --init {start} with it, got {', '.join(inits)}")
    rank = 64 if birth.rank is None else birth.rank
    return replace(birth, init=inits, alpha=birth.alpha or (0.3,), rank=rank, k=K if birth.k is None else birth.k)


def choices_of(birth: Birth, fit: Fit, seeds: tuple[int, ...]) -> list[Choice]:
    """Every combination; an exponent goes with whitening alone. birth: with its defaults."""
    inits = birth.init if birth.prescription is None else ("prescription",)
    starts = [(init, alpha) for init in inits for alpha in (birth.alpha if init == "whiten" else birth.alpha[:1])]
    return [
        Choice(init=init, alpha=alpha, lr=lr, l1=l1, seed=seed)
        for (init, alpha), lr, l1, seed in product(starts, fit.lr, fit.l1 or (None,), seeds)
    ]


def name_of(choice: Choice, choices: list[Choice]) -> str:
    """What sets it apart from the others, as the name of a folder."""
    differing = [name for name in vars(choice) if len({getattr(c, name) for c in choices}) > 1]
    if choice.init != "whiten" and "alpha" in differing:
        differing.remove("alpha")
    values = {name: getattr(choice, name) for name in differing}
    return "_".join(value if name == "init" else f"{name}{value!r}" for name, value in values.items())


def sparsity_of(birth: Birth) -> Sparsity:
    """Which latents fire. birth: with its defaults; a k that is not the sparsity's is that of its penalty."""
    return firing.sparsity_of(birth, also=("k",))


def config_of(birth: Birth, fit: Fit, keep: Keep, choice: Choice) -> TrainConfig:
    """How a member is trained. Raises InputError as `TrainConfig`, and for an L1 coefficient without a ReLU SAE."""
    if (birth.sparsity == "relu") != (choice.l1 is not None):
        raise InputError(
            f"expected --l1 with --sparsity relu and with no other, got {birth.sparsity}, --l1 {choice.l1}"
        )
    penalty = L1(coefficient=choice.l1) if choice.l1 is not None else None
    return TrainConfig(
        steps=fit.steps,
        lr=choice.lr,
        b_dec_lr=fit.b_dec_lr,
        batch_tokens=fit.batch_tokens,
        warmup_steps=fit.warmup_steps,
        decay_steps=fit.decay_steps,
        penalty=L0Target(l0=float(_k(birth))) if birth.sparsity == "jumprelu" else penalty,
        revival=AuxK() if fit.revive == "auxk" else GhostGradients() if fit.revive == "ghost" else None,
        resampling=_resampling(fit.steps) if fit.revive == "resample" else None,
        products="bfloat16" if fit.bfloat16 else None,
        record_every=keep.record_every,
        seed=choice.seed,
    )


def about_of(
    choice: Choice, birth: Birth, strays: Strays, saved: Prescription | None, *, layer: str, held_out: int
) -> dict[str, Any]:
    """What the summary of a member says of how it was born, and on what; told before a token is read."""
    settings = {name: value for name, value in firing.settings_given(birth).items() if name != "k"}
    told = {"d_sae", "k", "sparsity", "firing_rate", "scale", "layer_norm", *(() if saved else ("alpha", "rank"))}
    options = {name: value for name, value in vars(birth).items() if name in told}
    return {
        "layer": layer,
        "start": saved.remedy.name if saved else choice.init,
        **options,
        **({} if saved else {"alpha": choice.alpha}),
        **({"sparsity_settings": settings} if settings else {}),
        "strays_in_training": strays,
        "held_out": held_out,
        "seed": choice.seed,
    }


def _k(birth: Birth) -> int:
    assert birth.k is not None  # with_defaults
    return birth.k


def _resampling(steps: int) -> Resampling:
    """So that what is drawn last has time to learn."""
    return Resampling(every_steps=1000, until_step=resampling_until(steps))


class Births:
    """SAEs of one layer, whose statistics are read once for every seed."""

    def __init__(
        self, training: Activations, birth: Birth, strays: Strays, saved: Prescription | None, device: str | None
    ) -> None:
        """saved: a prescription to start from. Raises InputError for one that does not go with LayerNorm."""
        if birth.layer_norm and saved:
            raise InputError("--layer-norm: expected --init, as a prescription is one for tokens as they are")
        self._training, self._birth, self._saved, self._device = training, birth, saved, device
        self._tokens = same_passes(training)  # read to its end here, so that a run knows its digest from the start
        self._strays = strays
        self._read: dict[int, tuple[Statistics, Statistics]] = {}
        self._starts: dict[tuple[str, float, int], Remedy] = {}

    def entry(self, choice: Choice, settings: Settings, name: str) -> Entry:
        """A member, born; InputError as `born` and `start_from`."""
        member, layer = Member(sae=self._born(choice), config=settings.config, name=name), self._training.layer
        return Entry(member=member, about={**settings.about}, data=layer, prescription=self._saved)

    @property
    def all_tokens(self) -> Tokens:
        """Those of the layer that are not held out, strays included."""
        return self._tokens

    def tokens(self, seed: int) -> Tokens:
        """What is trained on."""
        return without_strays(self._tokens, self._strays, self._statistics(seed)[0])

    def _born(self, choice: Choice) -> SAE:
        birth, device = self._birth, self._device
        statistics, seen = self._statistics(choice.seed)
        # A rate under a few tokens of the sample cannot be set on it.
        least = 4 / len(statistics.sample)
        rate = max(_k(birth) / birth.d_sae, least) if birth.sparsity == "jumprelu" else None
        with warnings.catch_warnings(action="ignore"):  # the command line says it in a line of its own
            return born(
                self._saved or self._start(choice, seen),
                d_sae=birth.d_sae,
                sparsity=sparsity_of(birth),
                sample=statistics.sample,
                generator=torch.Generator(device or "cpu").manual_seed(choice.seed),
                firing_rate=rate if birth.firing_rate is None else birth.firing_rate,
                scaled=birth.scale,
                layer_norm=birth.layer_norm,
            )

    def _start(self, choice: Choice, seen: Statistics) -> Remedy:
        """Once for all learning rates and coefficients."""
        rank = self._birth.rank
        assert rank is not None  # with_defaults
        key = (choice.init, choice.alpha, choice.seed)
        if key not in self._starts:
            self._starts[key] = start_from(choice.init, seen, alpha=choice.alpha, rank=rank)
        return self._starts[key]

    def _statistics(self, seed: int) -> tuple[Statistics, Statistics]:
        """(of the tokens, of them as the SAE sees them)"""
        if seed not in self._read:
            raw = collect(self._tokens, seed=seed, device=self._device)
            normed = self._birth.layer_norm
            seen = collect(layer_normed(self._tokens), seed=seed, device=self._device) if normed else raw
            self._read[seed] = raw, seen
        return self._read[seed]
