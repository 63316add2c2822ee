"""What `features` saves: its measures in one JSON object."""

from collections.abc import Mapping
from typing import Any

from autopsae.features.compare import CoverageComparison
from autopsae.features.coverage_result import Coverage
from autopsae.features.examples import LatentExamples
from autopsae.features.monosemanticity import Monosemanticity
from autopsae.features.probe_survey import ProbeSurvey

FORMAT = "autopsae-features"


def features_content(
    *,
    coverage: Coverage | CoverageComparison | None = None,
    probes: ProbeSurvey | None = None,
    monosemanticity: Mapping[str, Monosemanticity] | None = None,
    examples: LatentExamples | None = None,
) -> dict[str, Any]:
    """{"format", "version", and the measures}: those of the coverage, or of the comparison, stand beside "probes",
    "monosemanticity" (by the name of the SAE) and "latent". What is None is left out.
    """
    content: dict[str, Any] = {"format": FORMAT, "version": 1}
    content |= {} if coverage is None else coverage.to_dict()
    if probes is not None:
        content["probes"] = probes.to_dict()
    if monosemanticity is not None:
        content["monosemanticity"] = {name: of.to_dict() for name, of in monosemanticity.items()}
    if examples is not None:
        content["latent"] = examples.to_dict()
    return content
