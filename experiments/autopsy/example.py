"""The example of docs/autopsy.md: one SAE of SAELens examined, re-centred as it is, and trained again as advised.

    python -m experiments.autopsy.example [--out results/example.json] [--figure docs/autopsy.png]

Half a minute, in the environment of `make test`. The SAE is one of `shift`: TopK on features in superposition of
gamma 3, from b_dec = 0. Prints what `autopsae autopsy` prints.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from experiments.autopsy.shift import Case, saelens, tokens
from rich.console import Console
from torch import Tensor

from autopsae import SAE, autopsy, evaluate, load_sae, recentre
from autopsae.evaluation import cost_of_recentring
from autopsae.files import write_text
from autopsae.report.figures import save_figure
from autopsae.report.text import autopsy_text

CASE = Case(library="SAELens", architecture="topk", start="zero", tokens="features", lr=1e-3, steps=300, seed=0)
HERE = Path(__file__).parent


def trained(case: Case, x: Tensor) -> SAE:
    torch.manual_seed(case.seed)
    with TemporaryDirectory() as made:
        saelens(case, x, Path(made))
        return load_sae(Path(made) / "end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "example.json")
    parser.add_argument("--figure", type=Path, default=HERE.parents[1] / "docs" / "autopsy.png")
    asked = parser.parse_args()
    x = tokens(CASE)
    sae = trained(CASE, x)
    found = autopsy(sae, x, steps=CASE.steps, lr=CASE.lr, written_by="saelens", prescription="cure")
    revived = recentre(sae, center=found.center, is_dead=found.is_dead)
    cost = cost_of_recentring(sae, revived, x)
    again = trained(replace(CASE, start="median"), x)
    Console(width=120).print(autopsy_text(found, cost))
    save_figure(found, asked.figure)
    content = {
        "autopsy": found.to_dict(),
        "recentred": cost.to_dict(),
        "from_the_median": {**autopsy(again, x).to_dict(), "fvu_raw": evaluate(again, x).fvu_raw},
        "fvu_raw": evaluate(sae, x).fvu_raw,
    }
    write_text(asked.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
