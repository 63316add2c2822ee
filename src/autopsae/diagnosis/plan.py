"""What training an SAE on each layer would take: measured once for layers on which a step does the same work."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.diagnosis.prescription import Prescription
from autopsae.sae.init import born
from autopsae.training.config import TrainConfig
from autopsae.training.plan import TrainingPlan, plan_training


class Planner:
    """Measures a training by `config` on the layers that it is shown."""

    def __init__(self, config: TrainConfig, device: torch.device | str | None = None) -> None:
        self._config, self._device = config, device
        self._plans: dict[tuple[int, bool, torch.dtype], TrainingPlan] = {}

    def show(
        self, prescription: Prescription, sample: Float[Tensor, "sample d_in"], stored: torch.dtype = torch.float32
    ) -> None:
        """A layer, by its prescription and a sample of its tokens. stored: their type on disk.

        A step does the same work on layers of one width, unless only one of them is whitened.
        """
        key = prescription.d_in, prescription.remedy.affine.linear is not None, stored
        if key in self._plans:
            plan = self._plans[key]
            self._plans[key] = replace(plan, layers=(*plan.layers, prescription.layer))
            return
        sae = born(prescription).to(self._device or sample.device)
        self._plans[key] = plan_training(sae, sample, self._config, layer=prescription.layer, stored=stored)

    @property
    def plans(self) -> tuple[TrainingPlan, ...]:
        """In the order in which layers were shown."""
        return tuple(self._plans.values())
