"""What an autopsy has found, as sentences: by cause, how many latents, what it means and what to do."""

from collections.abc import Mapping
from math import isinf

from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.measured import REPEATED

WORTH_A_WORD = 0.01
"""Share of the latents over which something is said."""

_MEANINGS = {
    "died_in_training": "their weights have moved since birth, and a fresh latent in their place would fire: "
    "training killed them",
    "shift": "they would fire if b_dec lay, or had lain from the start, at the centre of the tokens: the mean "
    "keeps them silent",
    "low_variance": "they look where the tokens hardly vary, and would fire if all directions varied alike",
    "outcompeted": "neither a centre nor more variance nor fresh weights would make them fire: the others are "
    "stronger on every token",
}
_ADVICE = {
    "died_in_training": "lower the learning rate or raise it slowly (warmup_steps in --config), or train on with "
    "--revive auxk or resample",
    "low_variance": "start from what `autopsae diagnose` prescribes (whitening), or ask for fewer latents",
    "outcompeted": "raise k, ask for fewer latents, or train on with --revive auxk; on more tokens some may fire",
}
_CURES = {
    "autopsae": "then `autopsae train ACTIVATIONS --out NEW --prescription {path}`",
    "saelens": "then `import autopsae.cure` and, before trainer.fit() or runner.run(), "
    '`autopsae.cure.cure_saelens(trainer, autopsae.Prescription.load("{path}"))`',
    "dictionary_learning": "then `import autopsae.cure` and, in trainer_configs, "
    '`autopsae.cure.cure_dictionary_learning(TrainerClass, autopsae.Prescription.load("{path}"))` in place '
    "of TrainerClass",
    "sparsify": "then `import autopsae.cure` and, before trainer.fit(), "
    '`autopsae.cure.cure_sparsify(trainer, {{hookpoint: autopsae.Prescription.load("{path}")}})`',
}
"""By the library that wrote the SAE: the call that spends the prescription."""

LIBRARIES = tuple(_CURES)
"""The libraries for which there is a call."""

CURE = "cure"
"""The name under which advice has the prescription written, where none was given."""


def advice(
    causes: Mapping[str, int],
    *,
    d_sae: int,
    tokens: int,
    wakes: int,
    stuck: int,
    travel: float | None,
    reach: float,
    always_on: int,
    repeated: float,
    layer_norm: bool,
    written_by: str,
    prescription: str | None,
) -> tuple[Finding, ...]:
    """Findings about more than 1 % of the latents, causes with the most latents first.

    wakes: latents that fire if they alone are re-centred; stuck: dead-by-ReLU latents that no b_dec within `reach`
    makes positive, travel: how far it would have to move for half of them. repeated: share of the tokens that are
    one vector, a finding of its own where it is over 20 %, and the first. layer_norm: whether the SAE normalises
    tokens; written_by: its library, as `format_of` names it; prescription: where one is written, if it is.
    """
    shift = (
        f"start anew from b_dec at the geometric median: {_how(layer_norm, written_by, prescription)}; --recentre "
    )
    shift += f"re-centres the SAE as it is, where {wakes:,} would fire if each were re-centred alone"
    ordered = sorted(causes, key=lambda name: -causes[name])
    rows = [(name, causes[name], _MEANINGS[name], {**_ADVICE, "shift": shift}[name]) for name in ordered]
    if travel is not None:
        rows.append(("out_of_reach", stuck, *_out_of_reach(travel, reach)))
    meaning = "they fire on nine of ten tokens or more, as a bias does"
    rows.append(("always_on", always_on, meaning, "look whether they carry the mean"))
    said = tuple(
        Finding(
            name=name,
            value=number / d_sae,
            threshold=WORTH_A_WORD,
            tokens=tokens,
            meaning=f"{number:,} latents; {meaning}",
            advice=what,
            source="counted; docs/autopsy.md",
        )
        for name, number, meaning, what in rows
        if number > WORTH_A_WORD * d_sae
    )
    return said if repeated <= REPEATED else (_one_vector(repeated, tokens), *said)


def _out_of_reach(travel: float, reach: float) -> tuple[str, str]:
    """(meaning, advice)."""
    if isinf(travel):
        meaning = (
            "no move of b_dec makes half of them positive: their rows are zero, or the encoder subtracts b_pre"
        )
        return meaning, "under b_pre, --recentre moves what the encoder subtracts; draw rows of zeros anew"
    meaning = f"some coordinate of b_dec has to move by {travel:.3g} before half of them are positive, lr * steps "
    return meaning + f"allows {reach:.3g}", "training of that length does not reach them; move b_dec by hand"


def _one_vector(share: float, tokens: int) -> Finding:
    """Padding is no token that a latent could fire on, but it counts in the centre, the spread and every rate."""
    return Finding(
        name="share of one repeated token",
        value=share,
        threshold=REPEATED,
        tokens=tokens,
        meaning=f"{share:.0%} of the tokens are one and the same vector: padding, or a BOS in every sequence? It "
        "counts in the centre of the tokens, and so in every cause here",
        advice="leave it out (--mask, --lengths) and look again before anything is changed",
        source="autopsae; copies of a token tell nothing new of the layer",
    )


def _how(layer_norm: bool, written_by: str, prescription: str | None) -> str:
    """The lines that start the next SAE at the centre."""
    if layer_norm:
        return '`autopsae train ACTIVATIONS --out NEW --config FILE` where FILE says {"layer_norm": true}'
    written = f"`autopsae autopsy ... --prescription {CURE}` writes it"
    if prescription is not None:
        written = f"{prescription}.json has it"
    return f"{written}, {_CURES[written_by].format(path=prescription or CURE)}"
