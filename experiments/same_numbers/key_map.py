"""What the restructuring renames, written down: everything else must be as before, to the bit.

A path is FILE/KEY/KEY, as `autopsy/auxk.json/causes/shift` or `topk/sae.safetensors/W_dec`; `*` stands for one part
of it, `**` for any number. Entries of a list are numbered, unless they have a `name` or a `layer`, which stands
for them. Rules are for the tree *after*; before = after needs none.
"""

from dataclasses import dataclass

RENAMED: tuple[tuple[str, str], ...] = (
    # Deaths by pathway
    ("**/birth/*/relu", "**/birth/*/dead_by_relu"),
    ("**/birth/*/topk", "**/birth/*/dead_by_topk"),
    ("**/birth/relu", "**/birth/dead_by_relu"),
    ("**/birth/topk", "**/birth/dead_by_topk"),
    ("**/predicted/relu", "**/predicted/dead_by_relu"),
    ("**/expected/*/relu/*", "**/expected/*/dead_by_relu/*"),
    ("diagnose/**/revival/relu", "diagnose/**/revival/dead_by_relu"),
    ("diagnose/**/revival/unrevived", "diagnose/**/revival/unrecovered"),
    ("diagnose/**/revival/**", "diagnose/**/recovery/**"),
    ("autopsy/*/revival/**", "autopsy/*/recovery/**"),
    ("**/summary.json/relu", "**/summary.json/dead_by_relu"),
    ("**/summary.json/topk", "**/summary.json/dead_by_topk"),
    ("**/members/*/relu", "**/members/*/dead_by_relu"),
    ("**/members/*/topk", "**/members/*/dead_by_topk"),
    ("**/records/*/relu", "**/records/*/dead_by_relu"),
    ("**/records/*/topk", "**/records/*/dead_by_topk"),
    ("**/records/*/*/relu", "**/records/*/*/dead_by_relu"),
    ("**/records/*/*/topk", "**/records/*/*/dead_by_topk"),
    ("**/fates/relu", "**/fates/dead_by_relu"),
    ("**/fates/topk", "**/fates/dead_by_topk"),
    ("**/records.csv/*/relu", "**/records.csv/*/dead_by_relu"),
    ("**/records.csv/*/topk", "**/records.csv/*/dead_by_topk"),
    ("**/prescription/advice", "**/prescription/instruction"),
    ("diagnose/*/*.json/advice", "diagnose/*/*.json/instruction"),
    ("autopsy/*_next.json/advice", "autopsy/*_next.json/instruction"),
    ("**/records.jsonl/*/relu", "**/records.jsonl/*/dead_by_relu"),
    ("**/records.jsonl/*/topk", "**/records.jsonl/*/dead_by_topk"),
    ("**/held_out.jsonl/*/relu", "**/held_out.jsonl/*/dead_by_relu"),
    ("**/held_out.jsonl/*/topk", "**/held_out.jsonl/*/dead_by_topk"),
    # A birth that the tree before wrote stays as it is where its run is resumed
    *(
        (f"carried_half/birth.json/birth/dead_by_{way}", f"carried_half/birth.json/birth/{way}")
        for way in ("relu", "topk")
    ),
    ("diagnose/*/layers/*/revival", "diagnose/*/layers/*/recovery"),
    # From Python
    ("python/numbers.json/**/relu", "python/numbers.json/**/dead_by_relu"),
    ("python/numbers.json/**/topk", "python/numbers.json/**/dead_by_topk"),
    ("python/numbers.json/forecasts/**/relu/*", "python/numbers.json/forecasts/**/dead_by_relu/*"),
    ("python/numbers.json/forecasts/**/unrevived", "python/numbers.json/forecasts/**/unrecovered"),
    # Counts of an autopsy
    *((f"autopsy/*/{name}", f"autopsy/*/n_{name}") for name in ("alive", "dead", "rare", "always_on")),
    *((f"autopsy/*/dead_by_{way}", f"autopsy/*/n_dead_by_{way}") for way in ("relu", "topk")),
    *((f"**/recentred/{name}", f"**/recentred/n_{name}") for name in ("dead", "woken", "displaced")),
)
"""(path before, path after), applied one after the other; `*` and `**` of the second are those of the first, in
order: ("**/birth/*/relu", "**/birth/*/dead_by_relu")."""

VALUES: tuple[tuple[str, str, str], ...] = ()
"""(path after, word before, word after), for names in values: ("**/prescription/remedy", "none", "nothing")."""

ADDED: dict[str, str] = {
    "**/sparsity/*": "a prescription and a diagnosis say for which sparsity they are",
    "**/scale": "a prescription carries the scale of its layer",
    "**/folder": "a sweep says in which folder each member is",
    "**/provenance/**": "what wrote a result: version, day, source, settings",
    "**/penalty/times_d_in": "the factor d_in of an L0 target can be left out",
    "**/training/nested": "Matryoshka training is a setting",
    "autopsy/*/dead": "an autopsy says fractions beside counts",
    "autopsy/*/dead_by_*": "an autopsy says fractions beside counts",
}
"""Paths that may be there after alone, and why."""

REMOVED: dict[str, str] = {}
"""Paths (as before) that may be there before alone, and why."""

IGNORED: dict[str, str] = {
    "autopsy/*.csv/*/margin": "of latents that fire: now over the k-th largest of the others, as in the forecast",
    "autopsy/*_next.json/k": "a prescription for a sparsity without a k says none",
    "**/*sha256": "checksum of a file, whose keys are renamed; all in it is compared",
}
"""Paths that are not compared, and why."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """How an option of the command line is given to the tree after."""

    name: str | None = None
    """Its new name; None where it is the old one."""
    commas: bool = False
    """Whether its values are now joined by commas."""
    config: str | None = None
    """Its name in the JSON of `--config FILE`, where it is no option any more; "fit.steps" is a nested name."""
    value: bool = True
    """What it says in that file where it is given without a value: `--no-scale` is {"scale": false}."""


OPTIONS: dict[tuple[str, str], Option] = {
    **{("diagnose", option): Option(commas=True) for option in ("--layers", "--alphas", "--ranks")},
    **{("harvest", option): Option(commas=True) for option in ("--layers", "--skip-ids")},
    ("autopsy", "--revive"): Option(name="--recentre"),
    ("train", "--no-scale"): Option(config="scale", value=False),
    **{
        ("train", f"--{name.replace('_', '-')}"): Option(config=name)
        for name in (
            *("alpha", "rank", "firing_rate", "layer_norm", "warmup_steps", "decay_steps", "bfloat16"),
            *("evaluate_every", "target_fvu", "record_every", "memory", "csv", "tensorboard"),
        )
    },
}
"""{(verb, option before): how it is given after}: ("autopsy", "--revive"): Option(name="--recentre")."""

NAMES: dict[str, tuple[str, ...]] = {
    "dead_by_relu": ("predicted_dead_by_relu",),
    "dead_by_topk": ("predicted_dead",),
    "revival": ("recovery",),
}
"""{name in Python before: its new names}, tried before the old one. Names that only moved need no entry."""
