"""SAEs of three libraries trained from a start away from the tokens' centre: is the shift named for its deaths?

    python -m experiments.autopsy.shift [--out results/shift.json]

In the environment of `make test`, which holds the libraries. Each SAE is made, trained and written by its library,
loaded by us and examined. Of its dead latents those count that fire at birth when the same rows start at the
tokens' geometric median: the shift is to be named for 95 % of them. As a check, SAEs that start at the median are
trained at rates that kill, and the shift must not be named. Tokens of gamma 3, 3.5 and 4 (a seed each): Gaussian
ones whose variances fall as j^-0.5, and sparse features in superposition; d_in 64, 8,000 tokens, d_sae 512, k 16,
256 tokens a step, Adam; all else is the library's default. Of sparsify its `SparseCoder` is driven, which starts
at zero; its Trainer, which wants a language model, would put the mean of the first batch there.

A few minutes; cases that are in the file are not run again. Prints a table of what is in the file.
"""

import argparse
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from benchmarks.peers import SparsifyLoop, versions
from torch import Tensor

from autopsae import SAE, autopsy, fates, load_sae
from autopsae.activations.synthetic import gaussian_tokens, synthetic_features
from autopsae.evaluation.causes import CAUSES
from autopsae.files import write_text
from autopsae.statistics import geometric_median

D_IN, TOKENS, D_SAE, K, BATCH = 64, 8000, 512, 16, 256
GAMMAS = (3.0, 3.5, 4.0)
"""By seed."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One SAE to be trained."""

    library: str
    architecture: str
    start: str
    """Of b_dec: "zero", or "median" of the tokens."""
    tokens: str
    """"gaussian" or "features"."""
    lr: float
    steps: int
    seed: int

    @property
    def gamma(self) -> float:
        return GAMMAS[self.seed]


def cases() -> Iterator[Case]:
    """From zero: rates at which b_dec hardly moves and moves; long enough for SAELens' AuxK; other libraries. Then
    from the median at rates that kill.
    """
    kinds, seeds = ("gaussian", "features"), range(len(GAMMAS))
    short = [(name, lr, 300) for lr in (3e-4, 1e-2) for name in ("topk", "batchtopk", "jumprelu", "standard")]
    long = [("topk", 1e-3, 1500), ("standard", 1e-3, 1500), ("standard", 1e-2, 1500)]
    for (name, lr, steps), kind, seed in itertools.product(short + long, kinds, seeds):
        yield Case(library="SAELens", architecture=name, start="zero", tokens=kind, lr=lr, steps=steps, seed=seed)
    others = (("dictionary_learning", "standard"), ("sparsify", "topk"))
    for (library, name), kind, seed in itertools.product(others, kinds, seeds):
        yield Case(library=library, architecture=name, start="zero", tokens=kind, lr=1e-3, steps=300, seed=seed)
    deadly = (("topk", 0.1, 300), ("standard", 0.1, 300), ("standard", 1e-2, 1500))
    for (name, lr, steps), kind, seed in itertools.product(deadly, kinds, seeds):
        yield Case(library="SAELens", architecture=name, start="median", tokens=kind, lr=lr, steps=steps, seed=seed)


def tokens(case: Case) -> Tensor:
    """Tokens of a case, [tokens, d_in]."""
    generator = torch.Generator().manual_seed(100 + case.seed)
    if case.tokens == "features":
        features = synthetic_features(
            TOKENS, case.gamma, d_in=D_IN, n_features=4 * D_IN, n_active=8, generator=generator
        )
        return torch.cat(list(features))
    return gaussian_tokens(TOKENS, D_IN, case.gamma, spectrum=0.5, generator=generator)


def batches(x: Tensor, seed: int) -> Iterator[Tensor]:
    """Random ones, the same for every library."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield x[torch.randint(len(x), (BATCH,), generator=generator)]


def saelens(case: Case, x: Tensor, folder: Path) -> None:
    """Writes the SAE at birth and after training to folder/birth and folder/end."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.training.sae_trainer import SAETrainer

    sae_class, config_class = get_sae_training_class(case.architecture)
    has_k = case.architecture in ("topk", "batchtopk")
    sae = sae_class(config_class(d_in=D_IN, d_sae=D_SAE, **({"k": K} if has_k else {})))
    if case.start == "median":
        sae.b_dec.data.copy_(geometric_median(x))
    # BatchTopK has not learned the threshold with which it is saved for inference.
    (sae.save_model if case.architecture == "batchtopk" else sae.save_inference_model)(folder / "birth")
    config = SAETrainerConfig(
        total_training_samples=case.steps * BATCH, train_batch_size_samples=BATCH, lr=case.lr, lr_end=case.lr
    )
    SAETrainer(cfg=config, sae=sae, data_provider=batches(x, case.seed)).fit()
    sae.save_inference_model(folder / "end")


def dictionary_learning(case: Case, x: Tensor, folder: Path) -> None:
    """As `saelens`."""
    from dictionary_learning.trainers import StandardTrainer

    trainer = StandardTrainer(
        steps=case.steps,
        activation_dim=D_IN,
        dict_size=D_SAE,
        layer=0,
        lm_name="",
        lr=case.lr,
        warmup_steps=0,
        sparsity_warmup_steps=None,
        seed=case.seed,
        device="cpu",
    )
    for name in ("birth", "end"):
        if name == "end":
            for step, batch in zip(range(case.steps), batches(x, case.seed), strict=False):
                trainer.update(step, batch)
        (folder / name).mkdir()
        torch.save(trainer.ae.state_dict(), folder / name / "ae.pt")
        write_text(folder / name / "config.json", json.dumps({"trainer": trainer.config, "buffer": {}}))


def sparsify(case: Case, x: Tensor, folder: Path) -> None:
    """As `saelens`. Its Trainer wants a language model, so the body of its `fit` is driven."""
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, k=K))
    coder.save_to_disk(folder / "birth")
    loop = SparsifyLoop(coder, case.lr)
    for _, batch in zip(range(case.steps), batches(x, case.seed), strict=False):
        loop.step(batch)
    coder.save_to_disk(folder / "end")


LIBRARIES = {"SAELens": saelens, "dictionary_learning": dictionary_learning, "sparsify": sparsify}


def examined(case: Case) -> dict[str, Any]:
    """What became of the SAE, and what the autopsy says of it."""
    x = tokens(case)
    median = geometric_median(x)
    torch.manual_seed(case.seed)
    with TemporaryDirectory() as made:
        LIBRARIES[case.library](case, x, Path(made))
        birth, end = load_sae(Path(made) / "birth"), load_sae(Path(made) / "end")
    return {**asdict(case), "gamma": case.gamma, **measured(birth, end, x, median)}


@torch.no_grad()
def measured(birth: SAE, end: SAE, x: Tensor, median: Tensor) -> dict[str, Any]:
    """Counts of latents; b_dec: how far on the way from zero to the median, 1 being there."""
    found = autopsy(end, x)
    birth.b_dec.copy_(median)
    counted = found.is_dead & (fates(birth, x).fired > 0)
    return {
        "b_dec": float(end.b_dec.double() @ median / median.square().sum()),
        "dead": int(found.is_dead.sum()),
        "would_have_fired": int(counted.sum()),
        "named": {name: int((found.cause[counted] == i).sum()) for i, name in enumerate(CAUSES) if i},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for the SAEs that differ in their seed and tokens alone."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in ("library", "architecture", "start", "lr", "steps"))].append(row)
    lines = ["| library | architecture | start | rate | steps | SAEs | b_dec | dead | shift named | worst SAE |"]
    lines.append("|" + "---|" * 10)
    for (library, architecture, start, lr, steps), group in groups.items():
        shares = [row["named"]["shift"] / max(row["would_have_fired"], 1) for row in group]
        dead = sum(row["would_have_fired"] for row in group)
        share = sum(row["named"]["shift"] for row in group) / max(dead, 1)
        worst = (max if start == "median" else min)(shares)
        low, high = min(row["b_dec"] for row in group), max(row["b_dec"] for row in group)
        lines.append(
            f"| {library} | {architecture} | {start} | {lr:g} | {steps} | {len(group)} | {low:.2f} to {high:.2f} | "
            f"{dead:,} | {share:.1%} | {worst:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "shift.json")
    out: Path = parser.parse_args().out
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.exists() else []
    for case in cases():
        if any(asdict(case).items() <= row.items() for row in rows):
            continue
        rows.append(examined(case))
        print(rows[-1], flush=True)
        write_text(out, json.dumps({"versions": versions(), "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
