"""From `--sparsity` and its settings to a sparsity of the library, and to all that is asked of a diagnosis."""

from typing import Any

from autopsae.arrays import InputError
from autopsae.cli.options.asking import Asking
from autopsae.cli.options.sparsity import Firing, sparsities, sparsities_with
from autopsae.defaults import K
from autopsae.sae.sparsity import SPARSITIES, Sparsity


def settings_given(firing: Firing) -> dict[str, Any]:
    """The settings of a sparsity that were given, by name."""
    named = dict.fromkeys(name for described in sparsities().values() for name in described.settings)
    return {name: getattr(firing, name) for name in named if getattr(firing, name) is not None}


def sparsity_of(firing: Firing, *, also: tuple[str, ...] = ()) -> Sparsity:
    """The sparsity that was asked for. also: settings that are for something else, where it has none of that name.

    Raises InputError for a setting that it does not have, and for one that it needs.
    """
    described, given = sparsities()[firing.sparsity], settings_given(firing)
    for name in given:
        if name not in described.settings and name not in also:
            raise InputError(
                f"--{name.replace('_', '-')}: expected --sparsity {' or '.join(sparsities_with(name))} with it, "
                f"got {firing.sparsity}; leave it out"
            )
    settings = {name: value for name, value in ({"k": K} | given).items() if name in described.settings}
    for name in described.settings:
        if name not in settings and name not in described.defaults:
            raise InputError(f"--sparsity {firing.sparsity}: expected --{name.replace('_', '-')} with it, got none")
    return SPARSITIES[firing.sparsity](**settings)


def settings_asked(asking: Asking) -> dict[str, Any]:
    """What is asked of a diagnosis, as its arguments. Raises InputError as `sparsity_of`."""
    names = ("d_sae", "at_tokens", "alphas", "ranks", "acceptable", "lr", "steps")
    return {"sparsity": sparsity_of(asking.firing), **{name: getattr(asking, name) for name in names}}
