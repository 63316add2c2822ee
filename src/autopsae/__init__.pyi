from autopsae.activations.batches import text_batches
from autopsae.activations.harvest import harvest, harvest_text
from autopsae.activations.hooks import hooked
from autopsae.activations.presets import load_model
from autopsae.activations.replace import replaced
from autopsae.activations.store import Activations, open_activations, open_layers
from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.prescribe import Prescription
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.survey import Survey, survey
from autopsae.evaluation.autopsy import Autopsy, autopsy
from autopsae.evaluation.directions import mmcs
from autopsae.evaluation.loss_recovered import LossRecovered, loss_recovered
from autopsae.evaluation.recentre import RecentringCost, cost_of_recentring, recentre
from autopsae.evaluation.reconstruction import Evaluation, evaluate
from autopsae.interop.convert import load_sae, save_sae
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten, z_score
from autopsae.sae.death import Fates, fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.median import geometric_median
from autopsae.survival.birth import Birth, measure_birth
from autopsae.survival.closed_form import predicted_dead, predicted_dead_by_relu
from autopsae.survival.forecast import Expected, Forecast, Outlook, forecast, forecast_births
from autopsae.survival.recovery import Recovery, recovery
from autopsae.training.config import Record, TrainConfig
from autopsae.training.logs import Csv, JsonLines, TensorBoard, WandB
from autopsae.training.loop import Diverged, Training, steps, train
from autopsae.training.objective import L1, L0Target
from autopsae.training.revival import AuxK, GhostGradients, Resampling
from autopsae.training.sources import Member

__all__ = [
    "L1",
    "SAE",
    "Activations",
    "Affine",
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
    "Recovery",
    "Remedy",
    "Resampling",
    "Sparsity",
    "Statistics",
    "Survey",
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
    "predicted_dead",
    "predicted_dead_by_relu",
    "recentre",
    "recovery",
    "replaced",
    "save_sae",
    "steps",
    "survey",
    "text_batches",
    "train",
    "untouched",
    "whiten",
    "z_score",
]
