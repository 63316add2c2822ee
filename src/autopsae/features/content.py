"""What `features` saves: its measures in one JSON object."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from autopsae.features.compare import CoverageComparison
from autopsae.features.coverage_result import Coverage
from autopsae.features.examples import LatentExamples, TopActivations
from autopsae.features.monosemanticity import Monosemanticity
from autopsae.features.probe_survey import ProbeSurvey
from autopsae.features.token_table import TokenTable

FORMAT = "autopsae-features"
_MOST = 50_000  # tokens with their texts: some 20 MB of JSON


def features_content(
    *,
    coverage: Coverage | CoverageComparison | None = None,
    probes: ProbeSurvey | None = None,
    monosemanticity: Mapping[str, Monosemanticity] | None = None,
    examples: LatentExamples | None = None,
    activations: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """{"format", "version", and the measures}: those of the coverage, or of the comparison, stand beside "probes",
    "monosemanticity" (by the name of the SAE), "latent", and "activations" (`activations_content`). What is None is
    left out.
    """
    content: dict[str, Any] = {"format": FORMAT, "version": 1}
    content |= {} if coverage is None else coverage.to_dict()
    if probes is not None:
        content["probes"] = probes.to_dict()
    if monosemanticity is not None:
        content["monosemanticity"] = {name: of.to_dict() for name, of in monosemanticity.items()}
    if examples is not None:
        content["latent"] = examples.to_dict()
    if activations is not None:
        content["activations"] = dict(activations)
    return content


def activations_content(
    tops: TopActivations, tokens: TokenTable | None, *, most: int, window: int = 12
) -> dict[str, Any]:
    """{"tokens", "d_sae", "latents"}: of each latent that fired, the `most` tokens of its largest codes with the
    text around them, and no spread. It holds 50,000 tokens at most; where there are more, those of the latents that
    fire most. window: tokens of context on each side.

    Raises InputError for a window below 0, and for a table of other tokens.
    """
    live = np.flatnonzero(tops.fired)
    shown = live[np.argsort(-tops.fired[live], kind="stable")][: _MOST // most]
    content = tops.to_dict(sorted(map(int, shown)), tokens, window=window)
    latents = [{**latent, "top": latent["top"][:most], "spread": []} for latent in content["latents"]]
    return {**content, "latents": latents}
