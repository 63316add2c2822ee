"""What the JSON of each kind of result must be, as far as the page shows it; the rest of it is left alone."""

from autopsae.kinds import Kind, anything, fields, flag, list_of, mapping_of, nothing_or, number, text, whole
from autopsae.run.finished import summary_kind, with_names_of_now

_ANY = number()
_MAYBE = nothing_or(_ANY)


def _pair(value: object) -> str | None:
    wrong = list_of(_ANY)(value)
    return wrong if wrong or (isinstance(value, list) and len(value) == 2) else ": expected two numbers"


def _open(**needed: Kind) -> Kind:
    return fields(needed, others=anything)


_FINDING = _open(name=text, value=_ANY, threshold=_ANY, tokens=whole(0), meaning=text, advice=text, source=text)
_EXPECTED = _open(value=_ANY, low=_ANY, high=_ANY)
_OUTLOOK = _open(tokens=whole(0), dead=_EXPECTED, dead_by_relu=_EXPECTED, usage=_ANY, effective_tokens=_ANY)
_BIRTH = fields(
    {"dead": _ANY, "dead_by_relu": _ANY, "dead_by_topk": _ANY, "tokens": whole(0)},
    optional={"dead_interval": nothing_or(_pair)},
    others=anything,
)
_NUMBERS: tuple[str, ...] = ("gamma", "gamma_raw", "effective_rank", "effective_rank_fraction")
_NUMBERS += ("mean_norm", "median_norm")
_NUMBERS += ("mean_median_distance", "mean_median_angle", "token_norm_median", "token_norm_p99", "token_norm_max")
_NUMBERS += ("stray_tokens", "stray_square")
_SEVERITY: dict[str, Kind] = dict.fromkeys(_NUMBERS, _ANY)


def _side_by_side(places: str, values: str) -> Kind:
    """Two lists of equal length: rising whole numbers, and a number for each."""
    parts = _open(**{places: list_of(whole(0)), values: list_of(_ANY)})

    def check(value: object) -> str | None:
        wrong = parts(value)
        if wrong or not isinstance(value, dict):
            return wrong
        rising = sorted({*value[places]}) == value[places]
        return (
            None if rising and len(value[places]) == len(value[values]) else f".{places}: expected as many, rising"
        )

    return check


_SPECTRUM, _LANDSCAPE = _side_by_side("directions", "variances"), _side_by_side("dimensions", "sizes")
_DIMENSION = _open(index=whole(0), mean=_ANY, std=_ANY, share=_ANY)


def _layer(value: object) -> str | None:
    needed: dict[str, Kind] = {
        "layer": text,
        **dict.fromkeys(("tokens", "d_in", "d_sae"), whole(0)),
        "sparsity": fields({"name": text}, others=anything),
        **_SEVERITY,
        "birth": mapping_of(_BIRTH),
        "expected": mapping_of(_OUTLOOK),
        "predicted": _open(dead_by_relu=_ANY, dead=_MAYBE),
        "prescription": _open(remedy=text, instruction=text, reason=text, paper=text),
        "outlier_dimensions": list_of(_DIMENSION),
        "findings": list_of(_FINDING),
    }
    intervals: dict[str, Kind] = {f"{name}_interval": _pair for name in ("gamma", "effective_rank_fraction")}
    intervals |= {"spectrum": _SPECTRUM, "landscape": _LANDSCAPE}
    return fields(needed, optional=intervals, others=anything)(value) or _check_names(value)


def _check_names(layer: object) -> str | None:
    """The remedies that the page looks up must be there."""
    assert isinstance(layer, dict)
    for of, names in (("birth", ("none",)), ("expected", ("none", layer["prescription"]["remedy"]))):
        for name in names:
            if name not in layer[of]:
                return f".{of}: expected {name!r} in it"
    return None


_POINT = _open(step=whole(0), tokens=whole(0), dead=_ANY, fvu_raw=_MAYBE, fvu_typical=_MAYBE)


def _points(value: object) -> str | None:
    return list_of(_POINT)(value) or (None if value else ": expected at least one point")


_CANDIDATE = fields(
    {"name": text, "points": _points, "diverged": nothing_or(text)},
    optional={"later": nothing_or(_POINT)},
    others=anything,
)
_TRIAL_NUMBERS = ("lr", "acceptable", "age", "epochs")
_COUNTS = ("d_sae", "steps", "batch_tokens", "for_steps", "for_batch_tokens", "tokens", "held_out")
TRIAL = fields(
    {
        **dict.fromkeys(("layer", "chosen", "reason"), text),
        **dict.fromkeys(_TRIAL_NUMBERS, _ANY),
        **dict.fromkeys(_COUNTS, whole(0)),
        "by_document": flag,
        "candidates": list_of(_CANDIDATE),
        "findings": list_of(_FINDING),
    },
    others=anything,
)


def _some_layers(value: object) -> str | None:
    return list_of(_layer)(value) or (None if value else ": expected at least one layer")


DIAGNOSIS = fields(
    {"verdict": list_of(text), "layers": _some_layers}, optional={"trials": mapping_of(TRIAL)}, others=anything
)

_RUN = fields(
    {},
    optional={
        "d_sae": whole(),
        "tokens": whole(0),
        "dead_tokens": whole(0),
        "strays": _ANY,
        "fvu_typical": _MAYBE,
        "bias_captured": _MAYBE,
        "dead_forecast": _MAYBE,
        "dead_forecast_interval": nothing_or(_pair),
        "dead_forecast_tokens": nothing_or(whole(0)),
        "firing_rates": mapping_of(whole(0)),
        "warnings": list_of(text),
        "resampled_at_end": nothing_or(_open(latents=whole(0), steps_before_end=whole(0))),
        "name": text,
        "data": text,
        "folder": text,
    },
    others=anything,
)


def run(value: object) -> str | None:
    """The summary of a run or of a member of a sweep, of any version."""
    return summary_kind(value) or _RUN(with_names_of_now(value) if isinstance(value, dict) else value)


SWEEP = fields({"best": mapping_of(nothing_or(text)), "members": list_of(run)}, others=anything)

AUTOPSY = fields(
    {
        **dict.fromkeys(("d_sae", "d_in", "tokens", "n_alive", "n_dead", "wake_on_recentring"), whole(0)),
        **dict.fromkeys(("n_rare", "n_always_on", "n_dead_by_relu", "n_dead_by_topk"), whole(0)),
        **dict.fromkeys(("dead", "dead_by_relu", "dead_by_topk", "strays", "repeated", "rare_below"), _ANY),
        "sparsity": text,
        "causes": mapping_of(whole(0)),
        "findings": list_of(_FINDING),
    },
    optional={"dead_forecast": _MAYBE, "dead_forecast_interval": nothing_or(_pair)},
    others=anything,
)

_PAIR_OF_COUNTS = list_of(whole(0))
_SCORE = _open(
    concept=text, latent=whole(0), threshold=_ANY, validation_f1=_ANY, precision=_ANY, recall=_ANY, f1=_ANY
)
_COVERAGE = fields(
    {
        **dict.fromkeys(
            ("d_sae", "live", "tokens", "documents", "concepts", "covered", "covered_by_chance"), whole(0)
        ),
        "mean_f1": _ANY,
        "concepts_per_live_latent": _MAYBE,
        **dict.fromkeys(("curve", "curve_by_chance", "latents_per_concept"), mapping_of(whole(0))),
        "scores": list_of(_SCORE),
    },
    others=anything,
)
_GAIN = _open(
    name=text,
    covered=whole(0),
    live=whole(0),
    more_covered=_ANY,
    more_covered_by_documents=_pair,
    more_covered_by_concepts=_pair,
    mean_f1=_ANY,
    more_f1=_ANY,
    more_f1_by_documents=_pair,
    more_f1_by_concepts=_pair,
    equal_live=whole(0),
    covered_by_equal_live=_ANY,
    baseline_by_equal_live=_ANY,
)
_EXAMPLE = fields(
    {
        "token": whole(0),
        "value": _ANY,
        "quantile": _ANY,
        **dict.fromkeys(("document", "position"), nothing_or(whole(0))),
        **dict.fromkeys(("before", "text", "after"), nothing_or(text)),
    }
)
LATENT = _open(latent=whole(0), fired=whole(0), rate=_ANY, top=list_of(_EXAMPLE), spread=list_of(_EXAMPLE))
_PROBE = _open(representation=text, k=whole(0), auc=_ANY, accuracy=_ANY, f1=_ANY)
_PROBES = _open(scores=list_of(_PROBE), shuffled=list_of(_PROBE))
_MONO = _open(
    d_sae=whole(0), scored=whole(0), mean=_MAYBE, mean_with_dead_as_zero=_ANY, mean_top_16=_MAYBE, by_chance=_MAYBE
)

_COMPARED = _open(baseline=text, coverages=mapping_of(_COVERAGE), gains=list_of(_GAIN))


def _comparison(value: object) -> str | None:
    wrong = _COMPARED(value)
    if wrong or not isinstance(value, dict) or value["baseline"] in value["coverages"]:
        return wrong
    return ".baseline: expected one of coverages"


_ACTIVATIONS = fields({"latents": list_of(LATENT)}, optional={"d_sae": whole()}, others=anything)

FEATURES: dict[str, Kind] = {
    "scores": _COVERAGE,
    "gains": _comparison,
    "probes": _open(probes=_open(probes=mapping_of(_PROBES))),
    "monosemanticity": _open(monosemanticity=mapping_of(_MONO)),
    "latent": _open(latent=LATENT),
    "latents": _ACTIVATIONS,
    "activations": _open(activations=_ACTIVATIONS),
}
"""By the name that tells that a features JSON has this part: what it must be."""
