"""autopsae: know how many latents of a sparse autoencoder will be born dead on a layer, why, and what to change.

The rooms, in the order in which the data pass through them; a room imports only rooms named before it:

    words            names and values from anywhere, fit for a message
    arrays           what a token matrix is, its checks, the one error class
    arguments        counts that callers give: integers, no truth values and no floats
    seeds, passes    a random stream for each purpose of a seed; whether two passes see the same tokens
    memory           what is free of it, and a refusal of what would not fit
    reading, pickles files that may be anything: regular ones only, JSON within bounds, harmless pickles
    disk, files      a full disk, locks, partial files of dead processes; files written whole or not at all
    kinds, saved     what our own files must hold; written with checksums, and checked when they are read back
    activations      where tokens come from: files, shards, models harvested with hooks, synthetic tokens
    statistics       tokens -> moments, norms, a uniform sample, geometric median, spectrum; one pass, float64
    remedies         what can be changed: a centre, a metric (z-score, whitening), a subspace for the rows
    survival         death at birth: by the paper's formula, counted, and forecast for any number of tokens
    diagnosis        severity, findings, the prescription
    sae              the model alone: born from a prescription, encode, decode, fold, save; who is alive
    training         fit one or many at once: objectives, revival, optimizers, the loop, checkpoints, logs
    evaluation       measure it: error in raw space, death and its causes, true directions found, loss recovered
    interop          SAEs of other libraries and public suites: loaded as ours, ours written for the libraries
    run              training from activations to folders: one SAE, or a sweep
    report           results -> tables and figures; computes nothing
    cli              the command line

The common way through: `survey(open_layers(folder), d_sae=..., k=...)`, or `diagnose(tokens, ...)` for one layer;
then `born(diagnosis.prescription, ...)` and `train(sae, tokens, TrainConfig(...))`.
"""

from autopsae.activations.batches import text_batches
from autopsae.activations.harvest import harvest, harvest_text
from autopsae.activations.hooks import hooked
from autopsae.activations.presets import load_model
from autopsae.activations.replace import replaced
from autopsae.activations.store import Activations, open_activations, open_layers
from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import Diagnosis, diagnose
from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.prescribe import Prescription
from autopsae.diagnosis.survey import Survey, survey
from autopsae.evaluation.autopsy import Autopsy, autopsy
from autopsae.evaluation.loss_recovered import LossRecovered, loss_recovered
from autopsae.evaluation.recentre import RecentringCost, cost_of_recentring, recentre
from autopsae.evaluation.reconstruction import Evaluation, evaluate
from autopsae.evaluation.recovery import mmcs
from autopsae.interop.convert import load_sae, save_sae
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten, z_score
from autopsae.sae.death import Fates, fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, TopK
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.median import geometric_median
from autopsae.survival.birth import Birth, measure_birth
from autopsae.survival.closed_form import dead_by_relu, dead_by_topk
from autopsae.survival.firing import Above, AmongLargest, AmongLargestOfBatch
from autopsae.survival.forecast import Expected, Forecast, Outlook, forecast, forecast_births
from autopsae.survival.revival import Revival, revival
from autopsae.training.config import Record, TrainConfig
from autopsae.training.logs import Csv, JsonLines, TensorBoard, WandB
from autopsae.training.loop import Diverged, Training, steps, train
from autopsae.training.objective import L1, L0Target
from autopsae.training.revival import AuxK, GhostGradients, Resampling
from autopsae.training.sources import Member
from autopsae.training.sweep import Sweep

__all__ = [
    "L1",
    "SAE",
    "Above",
    "Activations",
    "Affine",
    "AmongLargest",
    "AmongLargestOfBatch",
    "Autopsy",
    "AuxK",
    "BatchTopK",
    "Birth",
    "Csv",
    "Diagnosis",
    "Diverged",
    "Evaluation",
    "Expected",
    "Fates",
    "Finding",
    "Forecast",
    "GhostGradients",
    "GroupMax",
    "InputError",
    "JsonLines",
    "JumpReLU",
    "L0Target",
    "LossRecovered",
    "Member",
    "Outlook",
    "Prescription",
    "ReLU",
    "RecentringCost",
    "Record",
    "Remedy",
    "Resampling",
    "Revival",
    "Statistics",
    "Survey",
    "Sweep",
    "TensorBoard",
    "TopK",
    "TrainConfig",
    "Training",
    "WandB",
    "active_subspace",
    "autopsy",
    "born",
    "center",
    "collect",
    "cost_of_recentring",
    "dead_by_relu",
    "dead_by_topk",
    "diagnose",
    "evaluate",
    "fates",
    "forecast",
    "forecast_births",
    "geometric_median",
    "harvest",
    "harvest_text",
    "hooked",
    "load_model",
    "load_sae",
    "loss_recovered",
    "measure_birth",
    "mmcs",
    "open_activations",
    "open_layers",
    "recentre",
    "replaced",
    "revival",
    "save_sae",
    "steps",
    "survey",
    "text_batches",
    "train",
    "untouched",
    "whiten",
    "z_score",
]
