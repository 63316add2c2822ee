"""The forecast where its sample is of few documents: 4,096 tokens from the start of a stream.

    python -m experiments.survival.few_documents FOLDER LAYERS [--out results/few_documents.json]

The folder's tokens are in the order of its documents (chapters, images). The sample is 4,096 tokens evenly spaced
over the first 4,096, 16,384 or all of them; death is forecast for all tokens, raw and centered by the sample's
geometric median, and the same SAE is counted on them. Rows in the file stay.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from experiments.rows import read_rows, write_rows
from experiments.survival.validate import counted, encoder, remedies
from torch import Tensor

from autopsae import TopK, open_layers
from autopsae.activations.store import Activations
from autopsae.survival.forecast import forecast

HERE = Path(__file__).parent
SAMPLE, K = 4096, 64
SPANS = (4096, 16_384)
"""Besides the whole stream."""


def head(tokens: Activations, number: int) -> Tensor:
    """The first `number` tokens."""
    kept: list[Tensor] = []
    for batch in tokens:
        kept.append(batch[: number - sum(map(len, kept))].clone())
        if sum(map(len, kept)) == number:
            break
    return torch.cat(kept).float()


def rows_of(tokens: Activations) -> list[dict[str, Any]]:
    """A row for each span and remedy."""
    rows = []
    for span in (*SPANS, tokens.tokens):
        spread = torch.arange(SAMPLE) * span // SAMPLE
        sample = head(tokens, span)[spread]
        listed = remedies(sample)
        births = counted(tokens, listed)
        for remedy in listed:
            found = forecast(*encoder(sample, remedy), TopK(k=K), stream_tokens=span)
            dead = found.dead(tokens.tokens)
            rows.append(
                {
                    "remedy": remedy.name,
                    "span": span,
                    "tokens": tokens.tokens,
                    "counted": births[remedy.name][0],
                    "predicted": dead.value,
                    "low": dead.low,
                    "high": dead.high,
                    "effective_tokens": found.effective_tokens,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("layers", help="names, comma-separated")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "few_documents.json")
    asked = parser.parse_args()
    rows = read_rows(asked.out)
    available = open_layers(asked.folder)
    for layer in asked.layers.split(","):
        about = {"model": asked.folder.name, "layer": layer}
        if any(about.items() <= row.items() for row in rows):
            continue
        rows += [{**about, **row} for row in rows_of(available[layer])]
        write_rows(asked.out, rows)
        for row in rows[-2 * (1 + len(SPANS)) :]:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
