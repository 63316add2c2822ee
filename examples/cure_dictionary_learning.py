"""Train with dictionary_learning from a prescribed start: the cured trainer class goes into `trainer_configs`."""

import torch
from dictionary_learning.trainers import StandardTrainer
from dictionary_learning.training import trainSAE

import autopsae
from autopsae.cure import cure_dictionary_learning, peek

torch.manual_seed(0)
tokens = torch.randn(8000, 64) + 8 * torch.randn(64)
buffer = (tokens[torch.randint(len(tokens), (512,))] for _ in iter(int, 1))  # yours: an ActivationBuffer
sample, buffer = peek(buffer, 8000)  # reads ahead; the training still gets all tokens
prescription = autopsae.diagnose(sample, d_sae=512, k=16).prescription
config = {
    "trainer": cure_dictionary_learning(StandardTrainer, prescription),
    "activation_dim": 64,
    "dict_size": 512,
    "steps": 50,
    "warmup_steps": 0,
    "sparsity_warmup_steps": None,
    "layer": 0,
    "lm_name": "",
    "device": "cpu",
}
trainSAE(
    data=buffer,
    trainer_configs=[config],
    steps=50,
    save_dir="trained",
    autocast_dtype=torch.float32,
    device="cpu",
)
sae = autopsae.load_sae("trained/trainer_0")
print(f"{autopsae.fates(sae, tokens).dead:.1%} dead after training, cured")
