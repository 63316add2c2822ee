"""Train with SAELens from a prescribed start; `cure_saelens` takes its runner for language models too."""

import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

import autopsae
from autopsae.cure import cure_saelens

torch.manual_seed(0)
tokens = torch.randn(8000, 64) + 8 * torch.randn(64)  # yours
sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=64, d_sae=512, k=16))
print(f"{float((sae.encode(tokens) == 0).all(dim=0).float().mean()):.1%} born dead as SAELens starts it")
config = SAETrainerConfig(
    total_training_samples=50 * 512,
    train_batch_size_samples=512,
    lr=3e-4,
    lr_end=3e-4,
)
batches = (tokens[torch.randint(len(tokens), (512,))] for _ in iter(int, 1))
trainer = SAETrainer(cfg=config, sae=sae, data_provider=batches)
cure_saelens(trainer, autopsae.diagnose(tokens, d_sae=512, k=16).prescription)
trained = trainer.fit()  # takes raw tokens
print(f"{float((trained.encode(tokens) == 0).all(dim=0).float().mean()):.1%} dead after training, cured")
