"""SAELens' names of published SAEs: `saelens:RELEASE/ID`, as in `SAE.from_pretrained(RELEASE, ID)`.

The registry is the file of the installed SAELens; it is read without importing that library, which takes seconds.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.reading import input_errors, read_bytes
from autopsae.words import list_names, printable

SAELENS = "saelens:"
REGISTRY = "pretrained_saes.yaml"

_NO_SAES = ("transcoder", "temporal", "clt")
"""Parts of the names of converters and folders of what is no SAE of single activations."""


def name_on_hub(name: str) -> tuple[str, float | None]:
    """(`owner/repository/folder` on the Hugging Face Hub, the factor by which SAELens scales tokens for it) of the
    SAE that SAELens calls RELEASE/ID. None for no factor.

    Raises InputError where SAELens is not installed, for a release or an ID that its registry does not have, and
    for what is no SAE there or is changed by SAELens as it is loaded.
    """
    release, _, sae_id = name.partition("/")
    entry = _entry(release)
    known = {str(sae["id"]): sae for sae in entry["saes"]}
    if sae_id not in known:
        got = f"{sae_id!r}; the nearest: {_near(sae_id, known)}" if sae_id else f"none; it has {list_names(known)}"
        raise InputError(f"{SAELENS}{name}: expected an ID of the release {release}, got {printable(got, 400)}")
    path, kind = str(known[sae_id]["path"]), str(entry.get("conversion_func"))
    if any(part in word for part in _NO_SAES for word in (kind, release, path.lower())):
        raise InputError(
            f"{SAELENS}{name}: expected an SAE, got what predicts other activations than it reads; name an SAE"
        )
    if "normalize_activations" in (entry.get("config_overrides") or {}):
        raise InputError(
            f"{SAELENS}{name}: expected an SAE as its files describe it, but SAELens changes its normalisation; "
            "load it in SAELens"
        )
    factor = known[sae_id].get("norm_scaling_factor")
    return f"{entry['repo_id']}/{path}", None if factor is None else float(factor)


def _entry(release: str) -> Mapping[str, Any]:
    """What the registry says of a release."""
    registry = _read_registry(_place())
    if release not in registry:
        raise InputError(
            f"{SAELENS}{release}: expected a release of the installed SAELens, got {printable(release, 80)!r}; the "
            f"nearest: {_near(release, registry)}"
        )
    entry: Mapping[str, Any] = registry[release]
    return entry


def _near(name: str, names: Mapping[str, Any]) -> str:
    """The names that are most like this one."""
    return list_names(get_close_matches(name, names, n=4, cutoff=0.0))


def _place() -> Path:
    """The registry of the installed SAELens. Raises InputError where that is not installed."""
    spec = find_spec("sae_lens")
    if spec is None or spec.origin is None:
        raise package_error(
            f"{SAELENS}RELEASE/ID", "sae_lens", ImportError("it is not installed"), install="sae-lens"
        )
    return Path(spec.origin).with_name(REGISTRY)


@cache
def _read_registry(path: Path) -> Mapping[str, Any]:
    """The registry, by release."""
    try:
        import yaml
    except ImportError as error:
        raise package_error(f"{SAELENS}RELEASE/ID", "yaml", error, install="autopsae[hub]") from error
    with input_errors(path, "the registry of SAELens", "update SAELens (pip install -U sae-lens)"):
        # With libyaml it takes a fifth of the time.
        content = yaml.load(read_bytes(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return {str(name): entry for name, entry in content.items() if entry["repo_id"] and entry["saes"]}
