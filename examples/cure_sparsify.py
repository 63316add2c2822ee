"""Train with sparsify from a prescribed start: the cured Trainer does not start at its first batch's mean."""

import os

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # its kernels need a GPU

import torch
from datasets import Dataset
from sparsify import SparseCoderConfig, TrainConfig, Trainer
from transformers import LlamaConfig, LlamaForCausalLM

import autopsae
from autopsae.cure import cure_sparsify

torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4}
model = LlamaForCausalLM(LlamaConfig(vocab_size=100, num_hidden_layers=2, **sizes))  # yours
ids = torch.randint(100, (64, 32))
hookpoints = ["layers.0", "layers.1"]
with autopsae.activations.hooked(model, [f"model.{name}" for name in hookpoints]) as capture, torch.no_grad():
    model(ids)
    tokens = capture.take().values()
diagnoses = [autopsae.diagnose(x, d_sae=256, k=8) for x in tokens]
prescriptions = {name: d.prescription for name, d in zip(hookpoints, diagnoses, strict=True)}
config = TrainConfig(
    SparseCoderConfig(num_latents=256, k=8),
    batch_size=8,
    hookpoints=hookpoints,
    log_to_wandb=False,
    save_every=10**6,
)
trainer = Trainer(config, Dataset.from_dict({"input_ids": ids.tolist()}).with_format("torch"), model)
cure_sparsify(trainer, prescriptions).fit()
for name, x in zip(hookpoints, tokens, strict=True):
    sae = autopsae.load_sae(f"checkpoints/unnamed/{name}")  # of raw activations
    print(f"{name}: {autopsae.fates(sae, x).dead:.1%} dead after training, cured")
