"""Cures for latents that die in training, on equal terms: one SAE per layer and cure, judged on held-out documents.

    python -m experiments.training.cures FOLDER [--layers unirep64.hs4,...] [--cures auxk_short,...] [--lr 1e-3]
        [--steps 1000] [--seeds 0]
    python -m experiments.training.cures           # the tables of the kept rows, a second

FOLDER is what `experiments.survival.layers` wrote; tokens, split, batches and birth are those of
`experiments.survival.policies`, whose rows at the same settings are the constants to compare with. Each SAE has
rows in results/cures.json, as they come; an SAE whose rows are there is not trained again. A row has `layer, seed,
lr, steps, d_sae, k` (a bypass may take some of the k), `start` (remedy), `cure`, `dead, fvu_raw, fvu_typical`.
Errors are of raw tokens, with what a bypass explains.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from experiments.survival.policies import CENTER, remedy_of, split
from experiments.survival.policy_rows import BATCH
from experiments.training.cure_rows import CONSTANTS, Row, keep, read, tables
from experiments.training.prototypes import Beside, PreActivations, WeighedErrors
from jaxtyping import Float
from torch import Tensor

from autopsae import SAE, TopK, TrainConfig, born, evaluate
from autopsae.evaluation.reconstruction import Sums
from autopsae.sae.death import fates
from autopsae.statistics import collect, geometric_median
from autopsae.statistics.collect import Statistics
from autopsae.statistics.strays import STRAY, typical_norm
from autopsae.training import AuxK, GhostGradients, Member, Resampling, Training
from autopsae.training.bias import BIASES, Bias

LAYERS = ("unirep64.hs4", "spliceai.add_20", "unirep256.hs4", "dinov2.hs12")
SHORT = 20 * BATCH
"""Tokens of silence after which a latent is dead, in the cures named _short: 20 batches. The default is 250."""


@dataclass(frozen=True, kw_only=True)
class Cure:
    """How one SAE is born and trained."""

    start: str = "median"
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `TrainConfig` besides those that all have."""
    k: int = 0
    """Latents per token less than the others have."""
    encoder_bias: bool = False
    scheduled: bool = False
    """Whether what happens in a step depends on how many there will be: then only the end is a row."""
    fitted: bool = False
    """Whether the encoder is fitted at birth (`born(fit_encoder=True)`)."""
    clip: float | None = None
    """Training tokens further from the median than this quantile are drawn in to it."""
    rank: int = 0
    """Of a bypass along principal directions."""
    bypass: Literal["before", "beside", "learned"] = "before"
    """before: the SAE sees what the bypass leaves; beside: it sees the whole token; learned: so, and U, V learn."""
    term: Callable[[], Any] | None = None
    """A term of the loss that the library does not have."""


_RELATIVE = {"relative_encoder_lr": True}
_FITTED: Mapping[str, dict[str, Any]] = {
    "": {"config": _RELATIVE},
    "_0.15": {"config": _RELATIVE, "start": "whiten_0.15"},
    "_0.15_frozen": {"config": {**_RELATIVE, "bias": BIASES["frozen"]}, "start": "whiten_0.15"},
    "_before_4": {"config": _RELATIVE, "rank": 4},
    "_fast": {},
    "_fast_0.15": {"start": "whiten_0.15"},
    "_fast_0.3": {"start": "whiten_0.3"},
    "_fast_slow": {"config": {"bias": BIASES["slow"]}},
}
"""Cures whose encoder is fitted, by the end of their names; those named _fast learn at the full rate."""


def cures(steps: int) -> dict[str, Cure]:
    """All cures, by name, for a training of so many steps; the constants are among them."""
    half, tenth = steps // 2, steps // 10
    resampling = Resampling(every_steps=tenth, until_step=half, dead_after_tokens=SHORT)
    short = {"dead_after_tokens": SHORT}
    return {
        **{name: Cure(start=name) for name in CONSTANTS if name != "median_slow"},
        "median_slow": Cure(config={"bias": BIASES["slow"]}),
        **{f"fitted{name}": Cure(fitted=True, **more) for name, more in _FITTED.items()},
        "fitted_auxk": Cure(fitted=True, config={**_RELATIVE, "revival": AuxK(**short)}),
        "preact_short": Cure(term=lambda: PreActivations(coefficient=0.1)),
        "auxk_short": Cure(config={"revival": AuxK(**short)}),
        "before_4": Cure(rank=4),
        "before_8": Cure(rank=8),
        "before_4_k28": Cure(rank=4, k=4),
        "biases": Cure(encoder_bias=True),
        "slow_biases": Cure(encoder_bias=True, config={"bias": BIASES["slow"]}),
        "until_tenth": Cure(scheduled=True, config={"bias": Bias(until_step=tenth)}),
        "from_half": Cure(scheduled=True, config={"bias": Bias(from_step=half)}),
        "resample_half": Cure(scheduled=True, config={"resampling": resampling}),
        "weighed": Cure(term=WeighedErrors),
        "clipped": Cure(clip=0.999),
        "decay_half": Cure(scheduled=True, config={"decay_steps": half}),
        "warmup_tenth": Cure(scheduled=True, config={"warmup_steps": tenth}),
        "whiten_0.02": Cure(start="whiten_0.02"),
        "whiten_0.1": Cure(start="whiten_0.1"),
        "beside_4": Cure(rank=4, bypass="beside"),
        "learned_4": Cure(rank=4, bypass="learned"),
        "before_1": Cure(rank=1),
        "auxk": Cure(config={"revival": AuxK()}),
        "auxk_short_1": Cure(config={"revival": AuxK(coefficient=1.0, **short)}),
        "ghost_short": Cure(config={"revival": GhostGradients(**short)}),
        "preact_rows": Cure(term=lambda: PreActivations(coefficient=0.1, moves_center=False)),
        "preact_strong": Cure(term=lambda: PreActivations(coefficient=1.0)),
        "frozen": Cure(config={"bias": BIASES["frozen"]}),
        "decoder": Cure(config={"bias": BIASES["decoder"]}),
        "frozen_biases": Cure(encoder_bias=True, config={"bias": BIASES["frozen"]}),
        "preact_biases": Cure(encoder_bias=True, term=lambda: PreActivations(coefficient=0.1)),
    }


def draw_in(x: Float[Tensor, "tokens d_in"], quantile: float) -> Float[Tensor, "tokens d_in"]:
    """The tokens, those further from their median than this share of all brought to that distance."""
    point = geometric_median(x[:20_000]).to(x)
    distance = (x - point).norm(dim=1, keepdim=True)
    limit = distance.flatten().kthvalue(int(quantile * len(x)))[0]
    return point + (x - point) * (limit / distance).clamp_max(1)


@torch.no_grad()
def judge(sae: SAE, x: Tensor, rest: Tensor, beside: Beside | None) -> Row:
    """Who is dead and what the error is, of raw tokens x. rest: what the SAE sees of them."""
    if beside is None and rest is x:  # no bypass
        end = evaluate(sae, x)
        return {"dead": end.fates.dead, "fvu_raw": end.fvu_raw, "fvu_typical": end.fvu_typical}
    assert sae.linear is None
    y, back = sae.enter(rest)
    y_hat = sae.reconstruct(sae.select(y))
    if beside is not None:
        y_hat = y_hat + (y - sae.b_dec) @ beside.V @ beside.U.T
    error = (rest - back(y_hat)).double().square().sum(dim=1)
    is_stray = x.norm(dim=1) > STRAY * typical_norm(x)
    typical, stray = (Sums.of(x[mask].double(), error[mask]) for mask in (~is_stray, is_stray))
    both = typical + stray
    return {"dead": fates(sae, rest).dead, "fvu_raw": both.fvu, "fvu_typical": typical.fvu}


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """The tokens of a layer, and what SAEs see of them under a cure: clipped, or without what a bypass explains."""

    x: Float[Tensor, "tokens d_in"]
    held_out: Float[Tensor, "held_out d_in"]

    @staticmethod
    @cache
    def read(folder: Path, name: str) -> "Layer":
        x, held_out = split(folder, name)
        return Layer(x=x, held_out=held_out)

    @cache  # noqa: B019 (a layer lives as long as the program)
    def directions(self, rank: int) -> Float[Tensor, "d_in rank"]:
        """The first principal directions."""
        return torch.linalg.eigh(torch.cov(self.x.double().T))[1].flip(1)[:, :rank].to(self.x)

    @cache  # noqa: B019
    def seen(self, clip: float | None, rank: int) -> tuple[Tensor, Tensor, Statistics]:
        """(training tokens, held-out tokens, statistics of the former). rank: of a bypass before the SAE."""
        x, rest = self.x, self.held_out
        if clip is not None:
            x = draw_in(x, clip)
        if rank:
            Q, center = self.directions(rank), x.mean(dim=0)
            x, rest = (tokens - (tokens - center) @ Q @ Q.T for tokens in (x, rest))
        return x, rest, collect(x)


def trained(cure: Cure, layer: Layer, *, seed: int, lr: float, at: Sequence[int]) -> Iterator[tuple[int, Row]]:
    """(number of steps, what held-out tokens say of the SAE then), for each number of steps in `at`."""
    x, rest, statistics = layer.seen(cure.clip, cure.rank if cure.bypass == "before" else 0)
    sae = born(
        remedy_of(cure.start, statistics),
        d_sae=int(CENTER["d_sae"]),
        sparsity=TopK(k=int(CENTER["k"]) - cure.k),
        sample=statistics.sample,
        encoder_bias=cure.encoder_bias,
        fit_encoder=cure.fitted,
        generator=torch.Generator().manual_seed(seed),
    )
    beside, term = None, cure.term() if cure.term else None
    if cure.rank and cure.bypass != "before":
        Q = layer.directions(cure.rank)
        term = beside = Beside(U=Q, V=Q, lr=lr if cure.bypass == "learned" else 0.0)
    settings = {"steps": at[-1], "lr": lr, "batch_tokens": BATCH, "record_every": at[-1], "seed": seed}
    training = Training([Member(sae=sae, config=TrainConfig(**settings, **cure.config))], x)
    with term.applied() if term else nullcontext():
        for _ in training.each_step():
            if training.step in at:
                yield training.step, judge(sae, layer.held_out, rest, beside)


def run(folder: Path, layer: str, name: str, seed: int, lr: float, at: Sequence[int]) -> None:
    """Make the rows of one SAE, unless they are there."""
    cure = cures(at[-1])[name]
    at = [*at[-1:]] if cure.scheduled else at
    about = {"layer": layer, "seed": seed, "lr": lr, "d_sae": int(CENTER["d_sae"])}
    about |= {"k": int(CENTER["k"]) - cure.k, "start": cure.start, "cure": name}
    there = [row["steps"] for row in read() if about.items() <= row.items()]
    if {*at} <= {*there}:
        return
    for steps, end in trained(cure, Layer.read(folder, layer), seed=seed, lr=lr, at=at):
        row = {**about, "steps": steps, **end}
        keep(row)
        numbers = f"{end['dead']:7.2%} {end['fvu_raw']:.5g} {end['fvu_typical']:.5g}"
        print(f"{layer:16s} {lr:g} {steps:5d} {name:14s} {numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="none: the tables of the rows that are kept")
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--cures", default="", help="all if not given")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--lr", type=float, default=CENTER["lr"])
    parser.add_argument("--steps", default="200,500,1000")
    asked = parser.parse_args()
    if asked.folder is None:
        print("\n\n".join(tables(read())))
        return
    for layer in asked.layers.split(","):
        for name in asked.cures.split(",") if asked.cures else cures(1):
            for seed in map(int, asked.seeds.split(",")):
                run(asked.folder, layer, name, seed, asked.lr, sorted(map(int, asked.steps.split(","))))


if __name__ == "__main__":
    main()
