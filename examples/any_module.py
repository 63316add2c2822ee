"""Diagnose any torch module: harvest its activations from your own batches, then diagnose each point."""

import tempfile
from pathlib import Path

import torch
from torch import nn

from autopsae import harvest, survey

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32), nn.LayerNorm(32))
# Your data, in batches that can be iterated again. A dict is given as model(**batch), a tensor as model(batch).
batches = [torch.randn(512, 32) for _ in range(16)]

with tempfile.TemporaryDirectory() as folder:
    # "2" is the output of model[2], "2:input" is its input. A second run continues, or only opens the shards.
    layers = harvest(model, batches, Path(folder) / "activations", points=["2:input", "2"])
    found = survey(layers, d_sae=1024, k=8)
    for diagnosis in found:
        print(diagnosis)
    found["2:input"].prescription.save(Path(folder) / "prescription")
