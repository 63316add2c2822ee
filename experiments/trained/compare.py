"""Does a cured SAE equal a baseline of four times its size? Paired, on the same concepts and documents.

For a layer and a seed, the coverages of `CURED` at the layer's size n, of the baseline at n, and of both controls
are compared with that of the baseline at 4 n: a row of `compared.json`, with intervals over concepts and over test
documents drawn anew, and coverage at equal numbers of live latents (`autopsae.features.compare_coverages`).
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from experiments.trained.arms import LR
from experiments.trained.layers import layer_of
from experiments.trained.measure import read_coverage
from experiments.trained.rows import COMPARED, Job, Row, keep, read_rows

from autopsae.features import Coverage, compare_coverages

CURED = ("auxk", "centered", "prescribed")
LARGE = "baseline x4"
SMALL = "baseline"
NEAR = 0.1
"""A cured SAE is as good as the larger one if it covers at most this share fewer concepts, at the low end of the
interval."""


def compare_layer(jobs: Sequence[Job], work: Path) -> None:
    """Write the row of one layer and seed, where the coverages are there. jobs: its SAEs."""
    own = [job for job in jobs if job.d_sae == layer_of(job.layer).d_sae]
    first = next((job for job in own if job.arm == SMALL), None)
    if first is None:
        return
    key = f"{first.layer} seed{first.seed} steps{first.steps} lr{first.lr:g}"
    large = read_coverage(replace(first, d_sae=4 * first.d_sae), work)
    others = {
        job.arm: read_coverage(job, work) for job in own if job.arm in (SMALL, *CURED, "random rows", "neurons")
    }
    known = {name: coverage for name, coverage in others.items() if coverage is not None}
    if large is None or not known:
        return
    keep({**first.about(), "key": key, **comparison_row(large, known, seed=first.seed)}, COMPARED)


def comparison_row(large: Coverage, others: dict[str, Coverage], *, seed: int) -> Row:
    """The numbers of a row."""
    comparison = compare_coverages({LARGE: large, **others}, baseline=LARGE, seed=seed)
    return {
        "concepts": len(large.scores),
        "documents": large.documents,
        "covered": large.count(),
        "live": large.live,
        "gains": {gain.name: asdict(gain) for gain in comparison.gains},
    }


def verdict(gain: Row, covered: int) -> str:
    """more: the interval over documents of the concepts covered, minus those of the larger baseline, is over 0;
    within a tenth: it is over minus a tenth of those; fewer: it is under 0; open: none of these.
    """
    low, high = gain["more_covered_by_documents"]
    if low > 0:
        return "more"
    if low >= -NEAR * covered:
        return "within a tenth"
    return "fewer" if high < 0 else "open"


def read_compared(steps: int) -> list[Row]:
    """The rows of trainings of so many steps at the usual rate."""
    return [row for row in read_rows(COMPARED) if (row["steps"], row["lr"]) == (steps, LR)]
