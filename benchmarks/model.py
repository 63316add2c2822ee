"""All layers of SmolLM2-135M diagnosed in one run of it, against its own forward passes over the same tokens.

Loading is left aside in both. The passes are those of the diagnosis: the same batches, without logits, with the
hidden states asked for. Run as `python -m benchmarks.model`.
"""

from typing import Any

import torch

from autopsae.activations.batches import forward
from autopsae.activations.presets import python_reference_text
from autopsae.diagnosis.model import diagnose_model
from autopsae.models import NetworkBatches, choose_pieces, load_network
from autopsae.models.network import Network
from benchmarks.harness import interleaved, save

NAME, TOKENS, D_SAE, K, ROUNDS = "smollm2", 16_384, 8192, 64, 2
AIM = 2.5
"""Times of the forward passes that the whole may take."""


def run_alone(network: Network) -> None:
    """The network's forward passes alone."""
    context = network.default_context
    pieces = choose_pieces(network, python_reference_text(), tokens=TOKENS, context=context)
    batches = NetworkBatches(network=network, pieces=pieces, points=network.points, context=context, batch_size=8)
    with torch.inference_mode():
        for number, batch in enumerate(batches):
            forward(network.model, {**batch, "output_hidden_states": True}, number)


def main() -> None:
    network = load_network(NAME)
    seconds = interleaved(
        {
            "forward": lambda: run_alone(network),
            "diagnosis": lambda: diagnose_model(network, tokens=TOKENS, d_sae=D_SAE, k=K),
        },
        ROUNDS,
    )
    result: dict[str, Any] = {
        "network": NAME,
        "layers": len(network.points),
        "tokens": TOKENS,
        "d_sae": D_SAE,
        "k": K,
        "aim": AIM,
        "seconds": seconds,
        "ratio": seconds["diagnosis"] / seconds["forward"],
    }
    save("model", result)


if __name__ == "__main__":
    main()
