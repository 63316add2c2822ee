"""autopsae: know how many latents of a sparse autoencoder will be born dead on a layer, why, and what to change.

The rooms, in the order in which the data pass through them; a room imports only rooms named before it:

    arrays, files    what a token matrix is, its checks, the one error class; files written whole or not at all
    activations      where tokens come from: files, shards, models harvested with hooks, synthetic tokens
    statistics       tokens -> moments, norms, a uniform sample, geometric median, spectrum; one pass, float64
    remedies         what can be changed: a centre, a metric (z-score, whitening), a subspace for the rows
    diagnosis        severity, death at birth predicted and measured, findings, the prescription
    report           results -> tables and figures; computes nothing
    cli              the command line

The common way through: `survey(open_layers(folder), d_sae=..., k=...)`, or `diagnose(tokens, ...)` for one layer.
"""

from autopsae.activations.harvest import harvest, harvest_text
from autopsae.activations.hooks import hooked
from autopsae.activations.presets import load_model
from autopsae.activations.store import Activations, open_activations, open_layers
from autopsae.arrays import InputError
from autopsae.diagnosis.birth import Birth, measure_birth
from autopsae.diagnosis.closed_form import dead_by_relu, dead_by_topk
from autopsae.diagnosis.diagnose import Diagnosis, diagnose
from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.prescribe import Prescription
from autopsae.diagnosis.survey import Survey, survey
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten, z_score
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.median import geometric_median

__all__ = [
    "Activations",
    "Affine",
    "Birth",
    "Diagnosis",
    "Finding",
    "InputError",
    "Prescription",
    "Remedy",
    "Statistics",
    "Survey",
    "active_subspace",
    "center",
    "collect",
    "dead_by_relu",
    "dead_by_topk",
    "diagnose",
    "geometric_median",
    "harvest",
    "harvest_text",
    "hooked",
    "load_model",
    "measure_birth",
    "open_activations",
    "open_layers",
    "survey",
    "untouched",
    "whiten",
    "z_score",
]
