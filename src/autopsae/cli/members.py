"""From the options of `train` to the SAEs that are trained: the rules are those of `run.members`."""

from dataclasses import replace
from typing import Any

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.cli import firing
from autopsae.cli.options.train import Birth, Fit, Keep
from autopsae.defaults import D_SAE, K, Strays
from autopsae.diagnosis.prescription import Prescription
from autopsae.run.choices import Choice, combinations
from autopsae.run.finished import Settings
from autopsae.run.folder import Entry
from autopsae.run.members import Layer, penalty_for, resampling_for
from autopsae.run.start import load_prescription
from autopsae.sae.sparsity import SPARSITIES, Sparsity
from autopsae.training.bias import BIASES
from autopsae.training.config import TrainConfig
from autopsae.training.recipes import Recipe, paper_recipe
from autopsae.training.revival import AuxK, GhostGradients
from autopsae.training.sources import Member


def with_defaults(birth: Birth) -> Birth:
    """The options, with a value for all that has a default.

    Raises InputError for what would be given in vain: another start beside a prescription, an exponent or a rank
    for a start that has none, a setting that the sparsity does not have.
    """
    firing.sparsity_of(birth, also=("k",) if SPARSITIES[birth.sparsity].usual_penalty == "l0" else ())
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
    d_sae, k = _size(birth)
    return replace(birth, init=inits, alpha=birth.alpha or (0.3,), rank=rank, d_sae=d_sae, k=k)


def _size(birth: Birth) -> tuple[int, int]:
    """(d_sae, k): as they were given, else those of the prescription, else the defaults."""
    d_sae, k = D_SAE, K
    if birth.prescription is not None and None in (birth.d_sae, birth.k):
        saved = load_prescription(birth.prescription)
        same = saved.sparsity.name == birth.sparsity and not birth.recipe
        d_sae, k = saved.d_sae, int(getattr(saved.sparsity, "k", K)) if same else K
    return d_sae if birth.d_sae is None else birth.d_sae, k if birth.k is None else birth.k


def choices_of(birth: Birth, fit: Fit, seeds: tuple[int, ...]) -> dict[str, Choice]:
    """Every combination, by its name. birth: with its defaults."""
    starts = birth.init if birth.prescription is None else ("prescription",)
    return combinations(
        starts=starts, alphas=birth.alpha, lrs=fit.lr, l1s=fit.l1, biases=fit.bias or ("learned",), seeds=seeds
    )


def recipe_of(birth: Birth, *, steps: int, l1: float | None = None) -> Recipe | None:
    """The published settings that were asked for. birth: with its defaults.

    Raises InputError for a sparsity that has none, and for a setting of the sparsity beside them.
    """
    if birth.recipe is None:
        return None
    if given := [name for name in firing.settings_given(birth) if name != "k"]:
        raise InputError(f"recipe: expected it alone, as it sets {' and '.join(given)} too; leave one of them out")
    return paper_recipe(birth.sparsity, l0=float(_k(birth)), l1=l1, steps=steps)


def sparsity_of(birth: Birth) -> Sparsity:
    """Which latents fire. birth: with its defaults; a k that is not the sparsity's is that of its penalty.

    Raises InputError for one that an SAE of this size cannot have, and for a k that is no number of its latents.
    """
    recipe = recipe_of(birth, steps=1)
    sparsity = recipe.sparsity if recipe else firing.sparsity_of(birth, also=("k",))
    sparsity.check(d_sae_of(birth))
    if sparsity.usual_penalty == "l0":
        check_k(_k(birth), d_sae_of(birth))
    return sparsity


def config_of(birth: Birth, fit: Fit, keep: Keep, choice: Choice) -> TrainConfig:
    """How a member is trained. Raises InputError as `TrainConfig` and `penalty_for`."""
    recipe = recipe_of(birth, steps=fit.steps, l1=choice.l1)
    published = dict(recipe.training) if recipe else {}
    decay_steps = published.pop("decay_steps", 0)
    if not recipe:
        published["penalty"] = penalty_for(sparsity_of(birth), l0=float(_k(birth)), l1=choice.l1)
    return TrainConfig(
        steps=fit.steps,
        lr=choice.lr,
        bias=BIASES[choice.bias],
        relative_encoder_lr=birth.fit_encoder,
        batch_tokens=fit.batch_tokens,
        warmup_steps=fit.warmup_steps,
        decay_steps=fit.decay_steps or decay_steps,
        nested=fit.nested,
        revival=AuxK() if fit.revive == "auxk" else GhostGradients() if fit.revive == "ghost" else None,
        resampling=resampling_for(fit.steps) if fit.revive == "resample" else None,
        products=fit.products,
        record_every=keep.record_every,
        seed=choice.seed,
        **published,
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
        "start": saved.remedy.name if saved else choice.start,
        **options,
        **({} if saved else {"alpha": choice.alpha}),
        **({"sparsity_settings": settings} if settings else {}),
        **({"recipe": birth.recipe} if birth.recipe else {}),
        **({"fit_encoder": True} if birth.fit_encoder else {}),
        "strays_in_training": strays,
        "held_out": held_out,
        "seed": choice.seed,
    }


def _k(birth: Birth) -> int:
    assert birth.k is not None  # with_defaults
    return birth.k


def d_sae_of(birth: Birth) -> int:
    """Number of latents. birth: with its defaults."""
    assert birth.d_sae is not None
    return birth.d_sae


def entry_of(
    layer: Layer,
    choice: Choice,
    birth: Birth,
    saved: Prescription | None,
    *,
    settings: Settings,
    name: str,
    latents: range | None = None,
) -> Entry:
    """A member, born. birth: with its defaults; latents: as for `born`."""
    assert birth.rank is not None  # with_defaults
    sae = layer.born(
        saved or layer.start(choice.start, alpha=choice.alpha, rank=birth.rank, seed=choice.seed),
        d_sae=d_sae_of(birth),
        sparsity=sparsity_of(birth),
        l0=float(_k(birth)),
        seed=choice.seed,
        firing_rate=birth.firing_rate,
        scaled=birth.scale,
        fit_encoder=birth.fit_encoder,
        latents=latents,
        recipe=recipe_of(birth, steps=settings.config.steps, l1=choice.l1),
    )
    member = Member(sae=sae, config=settings.config, name=name)
    return Entry(member=member, about={**settings.about}, data=settings.about["layer"], prescription=saved)
