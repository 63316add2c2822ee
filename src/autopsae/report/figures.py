"""Which figure shows which result: `draw_figure(result)`, which `.plot()` of every result calls."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.survey import Survey
from autopsae.evaluation.loss_recovered import LossRecovered
from autopsae.evaluation.recentre import RecentringCost
from autopsae.evaluation.reconstruction import Evaluation
from autopsae.evaluation.result import Autopsy
from autopsae.features.compare import CoverageComparison
from autopsae.features.coverage_result import Coverage
from autopsae.features.examples import LatentExamples, TopActivations
from autopsae.features.latent_probes import ProbeCoverage
from autopsae.features.monosemanticity import Monosemanticity
from autopsae.features.probe_survey import ProbeSurvey
from autopsae.features.probes import Probes
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy
from autopsae.report import count_plots, feature_plots, statistics_plots
from autopsae.report.autopsy_plots import autopsy_figure
from autopsae.report.concept_plots import concept_figure
from autopsae.report.plots import in_own_style, write_figure
from autopsae.report.survey_plots import diagnosis_figure, survey_figure
from autopsae.report.training_plots import outcome_figure, training_figure, trial_figure
from autopsae.sae.death import Fates
from autopsae.statistics.collect import Statistics
from autopsae.statistics.moments import Moments
from autopsae.statistics.norms import NormHistogram
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import Birth
from autopsae.survival.closed_form import Prediction
from autopsae.survival.forecast import Forecast
from autopsae.survival.outlook import Expected, Outlook
from autopsae.survival.recovery import Recovery
from autopsae.survival.trained import TrainedForecast
from autopsae.training.history import Records
from autopsae.trial.result import Outcome, Trial
from autopsae.words import list_names, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: Mapping[type, Callable[[Any], "Figure"]] = {
    Survey: survey_figure,
    Diagnosis: diagnosis_figure,
    Prescription: lambda prescription: statistics_plots.center_figure(prescription.remedy),
    Remedy: statistics_plots.center_figure,
    Affine: statistics_plots.center_figure,
    Trial: trial_figure,
    Outcome: outcome_figure,
    Records: training_figure,
    Autopsy: autopsy_figure,
    RecentringCost: count_plots.recentring_figure,
    Evaluation: count_plots.evaluation_figure,
    LossRecovered: count_plots.loss_figure,
    Fates: count_plots.fates_figure,
    Birth: count_plots.birth_figure,
    Prediction: count_plots.prediction_figure,
    Recovery: count_plots.recovery_figure,
    Expected: count_plots.interval_figure,
    Outlook: count_plots.outlook_figure,
    Forecast: count_plots.forecast_figure,
    TrainedForecast: count_plots.forecast_figure,
    Statistics: statistics_plots.statistics_figure,
    Moments: statistics_plots.moments_figure,
    NormHistogram: statistics_plots.norms_figure,
    Spectrum: statistics_plots.spectrum_figure,
    Coverage: concept_figure,
    CoverageComparison: concept_figure,
    ProbeCoverage: feature_plots.probe_coverage_figure,
    ProbeSurvey: feature_plots.probe_survey_figure,
    Probes: feature_plots.probes_figure,
    Monosemanticity: feature_plots.monosemanticity_figure,
    LatentExamples: feature_plots.examples_figure,
    TopActivations: feature_plots.activations_figure,
}
"""The figure of each kind of result. Settings, tables that were read and single statements have none."""


@in_own_style
def draw_figure(result: object) -> "Figure":
    """The figure of a result. Raises InputError for a result without one, and where matplotlib is missing."""
    for kind in type(result).__mro__:
        if kind in FIGURES:
            return FIGURES[kind](result)
    raise InputError(
        f"plot: expected a result with a figure ({list_names(kind.__name__ for kind in FIGURES)}), got "
        f"{show(type(result).__name__)}, which print() shows whole"
    )


def save_figure(result: object, path: str | Path) -> None:
    """Write the figure of a result as .png, .pdf or .svg, whole or not at all.

    Raises InputError for another suffix, for a result without a figure, and where matplotlib is missing.
    """
    write_figure(path, lambda: draw_figure(result))
