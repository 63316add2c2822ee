"""From the options of `train` to the SAEs that are trained: the rules are those of `run.members`."""

from dataclasses import fields, replace
from typing import Any

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.cli.options import Birth, Fit, Keep
from autopsae.diagnosis.prescribe import Prescription
from autopsae.run.choices import Choice, combinations
from autopsae.run.finished import Settings
from autopsae.run.folder import Entry
from autopsae.run.members import Layer, penalty_for, resampling_for
from autopsae.run.start import Strays
from autopsae.sae.sparsity import SPARSITIES, Sparsity
from autopsae.training.config import TrainConfig
from autopsae.training.revival import AuxK, GhostGradients
from autopsae.training.sources import Member


def with_defaults(birth: Birth) -> Birth:
    """The options, with a value for all that has a default.

    Raises InputError for what would be given in vain: another start beside a prescription, an exponent or a rank
    for a start that has none.
    """
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
    return replace(birth, init=inits, alpha=birth.alpha or (0.3,), rank=rank)


def choices_of(birth: Birth, fit: Fit, seeds: tuple[int, ...]) -> dict[str, Choice]:
    """Every combination, by its name. birth: with its defaults."""
    starts = birth.init if birth.prescription is None else ("prescription",)
    return combinations(starts=starts, alphas=birth.alpha, lrs=fit.lr, l1s=fit.l1, seeds=seeds)


def sparsity_of(birth: Birth) -> Sparsity:
    """Which latents fire. Raises InputError for one that an SAE of this size cannot have, and for a k that is no
    number of its latents, wherever k has a meaning.
    """
    named: Any = SPARSITIES[birth.sparsity]
    sparsity: Sparsity = named(k=birth.k) if "k" in {field.name for field in fields(named)} else named()
    sparsity.check(birth.d_sae)
    if sparsity.usual_penalty == "l0":
        check_k(birth.k, birth.d_sae)
    return sparsity


def config_of(birth: Birth, fit: Fit, keep: Keep, choice: Choice) -> TrainConfig:
    """How a member is trained. Raises InputError as `TrainConfig` and `penalty_for`."""
    return TrainConfig(
        steps=fit.steps,
        lr=choice.lr,
        b_dec_lr=fit.b_dec_lr,
        batch_tokens=fit.batch_tokens,
        warmup_steps=fit.warmup_steps,
        decay_steps=fit.decay_steps,
        penalty=penalty_for(sparsity_of(birth), l0=float(birth.k), l1=choice.l1),
        revival=AuxK() if fit.revive == "auxk" else GhostGradients() if fit.revive == "ghost" else None,
        resampling=resampling_for(fit.steps) if fit.revive == "resample" else None,
        products="bfloat16" if fit.bfloat16 else None,
        record_every=keep.record_every,
        seed=choice.seed,
    )


def about_of(
    choice: Choice, birth: Birth, strays: Strays, saved: Prescription | None, *, layer: str, held_out: int
) -> dict[str, Any]:
    """What the summary of a member says of how it was born, and on what; told before a token is read."""
    unused = {"prescription", "init", *(("alpha", "rank") if saved else ())}
    options = {name: value for name, value in vars(birth).items() if name not in unused}
    return {
        "layer": layer,
        "start": saved.remedy.name if saved else choice.start,
        **options,
        **({} if saved else {"alpha": choice.alpha}),
        "strays_in_training": strays,
        "held_out": held_out,
        "seed": choice.seed,
    }


def entry_of(
    layer: Layer, choice: Choice, birth: Birth, saved: Prescription | None, *, settings: Settings, name: str
) -> Entry:
    """A member, born. birth: with its defaults."""
    assert birth.rank is not None  # with_defaults
    sae = layer.born(
        saved or layer.start(choice.start, alpha=choice.alpha, rank=birth.rank, seed=choice.seed),
        d_sae=birth.d_sae,
        sparsity=sparsity_of(birth),
        l0=float(birth.k),
        seed=choice.seed,
        firing_rate=birth.firing_rate,
        scaled=birth.scale,
    )
    member = Member(sae=sae, config=settings.config, name=name)
    return Entry(member=member, about={**settings.about}, data=settings.about["layer"], prescription=saved)
