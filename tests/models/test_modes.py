"""A network's run leaves the caller in his own mode, also between two batches."""

import torch
from torch import nn

from autopsae.models import NetworkBatches, Piece, ProteinNetwork, collect_layers, run_network
from autopsae.models.sequences import AMINO_ACIDS, Letters


def batches(pieces: int) -> NetworkBatches:
    letters = Letters(ids={letter: number for number, letter in enumerate(AMINO_ACIDS)}, unknown=20)
    network = ProteinNetwork("tiny", Tiny(), letters=letters, points=["states"])
    chosen = [Piece(document=number, content=AMINO_ACIDS * 50, tokens=1000) for number in range(pieces)]
    return NetworkBatches(network=network, pieces=chosen, points=["states"], context=1000, batch_size=1)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.states = nn.Embedding(21, 8)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.states(input_ids)
        return states


def test_gradients_are_on_between_two_batches_and_the_network_gets_none() -> None:
    for tokens in run_network(batches(2), tokens=2000):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not tokens["states"].requires_grad
        tokens["states"].add_(1)


def test_statistics_are_collected_over_more_tokens_than_the_sample_holds() -> None:
    source = batches(10)
    # 4,096 tokens are kept; the last ones, after the run, take places of others.
    [(_, statistics)] = collect_layers(run_network(source, tokens=10_000))
    assert statistics.raw.tokens == 10_000
