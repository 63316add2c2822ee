"""The sweep that the figures on recovery share (5a-d, S6, S8, S9, S11, S12), and how it depends on the rate.

    python -m experiments.outliers_2605_31518.dynamics --scale quick|full

Three draws (quick: two) of features, tokens and rows. In each, seven gammas, each as baseline, with a frozen bias,
and with AuxK; one with frozen features; three baselines at half the rate. All of a draw see one stream of synthetic
features (d_in 50, 100 features, 5 active), each with its own offset, and start from the same rows (d_sae 100,
k 5, b = 0, nothing rescaled). Death is measured on held-out tokens.

The paper trains for 2M steps of 4,096 tokens; its rate is lost with its text. Adam moves a coordinate of the
bias by lr at most, so the product lr * steps says how far the bias can get, and |mu| how far it must: about 3.1
gamma. With frozen features the paper's bias needs 120,000 steps, which for |mu| = 63 means an lr of about 5e-4,
and lr * steps of 1,000. Here lr * steps is 120 (quick: 3e-3, 40,000 steps) or 200 (full: 2e-3, 100,000), with
128 tokens a step: small batches leave the symmetric start sooner, so that less is needed; in the quick runs of
gamma 20 and more the bias still gets less far than the paper's. The picture shows what half the rate changes, at
equal lr * steps: the bias is a little earlier, and collateral death rarer. AuxK calls a latent dead after 62
batches, as the paper does (256,000 / 4,096).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from experiments.outliers_2605_31518.curves import DEAD, band, courses, gamma_colours, packed
from experiments.outliers_2605_31518.frame import HERE, Claim, Data, Reproduction, Scale, main
from experiments.outliers_2605_31518.style import death_axis, legend_below, sheet
from matplotlib.figure import Figure
from torch import Tensor

from autopsae.activations.synthetic import SyntheticFeatures, synthetic_features
from autopsae.remedies.remedy import untouched
from autopsae.sae.death import Fates, fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.revival import AuxK
from autopsae.training.sources import Member


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained, and on how much."""

    steps: int
    lr: float
    batch_tokens: int
    tokens: int
    """In the training set, which is gone through again and again; the paper's 1M at full scale."""
    held_out: int
    """Tokens on which death is measured at each record."""
    records: int = 60
    gammas: tuple[float, ...] = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0)
    latents_at: float = 15.0
    """The gamma whose single latents are kept, for figure S8."""
    alone_at: float = 20.0
    """The gamma at which the bias also learns alone, for figure S11."""
    slower_at: tuple[float, ...] = (5.0, 15.0, 30.0)
    """The gammas that are also trained at half the rate."""
    sign_steps: int = 10_000
    """Of figure S10b."""
    d_in: int = 50
    d_sae: int = 100
    k: int = 5
    seed: int = 0


DRAWS = {"quick": 2, "full": 3}
"""Sweeps of each scale, each with a seed of its own."""
SETTINGS = {
    "quick": Setting(steps=40_000, lr=3e-3, batch_tokens=128, tokens=200_000, held_out=4096),
    "full": Setting(steps=100_000, lr=2e-3, batch_tokens=128, tokens=1_000_000, held_out=10_000, sign_steps=30_000),
}


def sweep(scale: Scale) -> Data:
    """The curves of all draws: of this process, from results/SCALE/dynamics.json if its settings are the same, or
    trained now.
    """
    path = HERE / "results" / scale.name / "dynamics.json"
    if path.exists() and not trained.cache_info().currsize:
        kept: Data = json.loads(path.read_text(encoding="utf-8"))["data"]
        settings = json.loads(json.dumps(asdict(SETTINGS[scale.name])))
        if kept["settings"] == settings and kept["draws"] == DRAWS[scale.name]:
            return kept
    return all_draws(scale)


def all_draws(scale: Scale) -> Data:
    """The sweeps of all draws as one: that of the first, and what differs in the others."""
    setting = SETTINGS[scale.name]
    first, *others = (trained(replace(setting, seed=setting.seed + draw)) for draw in range(DRAWS[scale.name]))
    further = [{name: other[name] for name in ("runs", "latents")} for other in others]
    return {**first, "draws": 1 + len(further), "further": further}


@cache
def trained(setting: Setting) -> Data:
    """Train one draw, and watch each SAE on the held-out tokens."""
    train, held_out = stream(setting)
    members = list(_members(setting))
    watched = [Watched(member, held_out, train) for member in members]
    steps = [0]
    for record in Training(members, train):
        for place in record:
            watched[place].look()
        steps.append(next(iter(record.values())).step + 1)
    latents = (f"baseline {setting.latents_at:g}", f"frozen {setting.latents_at:g}")
    runs = {member.name: each.packed() for member, each in zip(members, watched, strict=True)}
    each_latent = {run.name: run.latents() for run in watched if run.name in latents}
    described = json.loads(json.dumps(asdict(setting)))
    return {
        "settings": described,
        "gammas": list(setting.gammas),
        "steps": steps,
        "runs": runs,
        "latents": each_latent,
    }


def stream(setting: Setting) -> tuple[Tensor, Tensor]:
    """Tokens without an offset, to train on and to hold out."""
    data = replace(_data(setting, setting.gammas[0]), offset=torch.zeros(setting.d_in))
    other = replace(data, tokens=setting.held_out, seed=data.seed // 2 + 1)
    return torch.cat(list(data)), torch.cat(list(other))


def offset(setting: Setting, gamma: float) -> Tensor:
    """What makes the stream one of this gamma."""
    return _data(setting, gamma).offset


def _data(setting: Setting, gamma: float) -> SyntheticFeatures:
    # The generator draws the features first: a seed gives the same ones, and the same tokens, at every gamma.
    generator = torch.Generator().manual_seed(setting.seed)
    return synthetic_features(setting.tokens, gamma, d_in=setting.d_in, generator=generator)


def born_plain(setting: Setting) -> SAE:
    """The paper's baseline at birth."""
    generator = torch.Generator().manual_seed(setting.seed + 1)
    sparsity = TopK(k=setting.k)
    return born(untouched(setting.d_in), d_sae=setting.d_sae, sparsity=sparsity, scaled=False, generator=generator)


def _members(setting: Setting) -> Iterator[Member]:
    plain = TrainConfig(
        steps=setting.steps,
        lr=setting.lr,
        batch_tokens=setting.batch_tokens,
        record_every=max(1, setting.steps // setting.records),
    )
    auxk = AuxK(dead_after_tokens=62 * setting.batch_tokens)
    conditions = {
        "baseline": plain,
        "frozen": replace(plain, frozen=("b_dec",)),
        "auxk": replace(plain, revival=auxk),
    }
    wanted = [(name, gamma, config) for name, config in conditions.items() for gamma in setting.gammas]
    wanted.append(("alone", setting.alone_at, replace(plain, frozen=("W_enc", "W_dec"))))
    wanted += [("slower", gamma, replace(plain, lr=setting.lr / 2)) for gamma in setting.slower_at]
    for name, gamma, config in wanted:
        yield Member(sae=born_plain(setting), config=config, shift=offset(setting, gamma), name=f"{name} {gamma:g}")


class Watched:
    """A member on held-out tokens, over training.

    relu, topk: dead by pathway; threshold: the k-th largest pre-activation (0 if negative), mean over tokens; bias,
    features: shares of the held-out mean in b and in the mean of z W_dec; born_dead: share of all latents that were
    born dead-by-ReLU and still are; moved: the largest change, since birth, of such a latent's maximum
    pre-activation. Born: measured on the training tokens too, so that no token can have moved what was born dead.
    """

    def __init__(self, member: Member, held_out: Tensor, train: Tensor) -> None:
        self.name, self._sae = member.name, member.sae
        shift = 0 if member.shift is None else member.shift
        self._y = member.sae.affine(held_out + shift)
        self.born = fates(member.sae, torch.cat([train, held_out]) + shift)
        self._curves: dict[str, list[float]] = {}
        self._maxima: list[Tensor] = []
        self.look()

    @torch.no_grad()
    def look(self) -> None:
        """Measure what the member is now."""
        sae, y, sparsity = self._sae, self._y, self._sae.sparsity
        assert isinstance(sparsity, TopK)
        pre = sae.pre_activations(y)
        best = pre.topk(sparsity.k, dim=1)
        values = best.values.relu()
        maxima, summed = pre.amax(dim=0), values.new_zeros(sae.d_sae)
        summed = summed.index_add(0, best.indices.flatten(), values.flatten())
        mean, dead_by_relu = y.mean(dim=0), maxima <= 0
        self._maxima.append(maxima)
        change = (maxima - self._maxima[0])[~self.born.positive]
        found = {
            "relu": dead_by_relu.float().mean(),
            "topk": ((summed == 0) & ~dead_by_relu).float().mean(),
            "threshold": values.amin(dim=1).mean(),
            "bias": sae.b_dec @ mean / mean.square().sum(),
            "features": summed @ sae.W_dec @ mean / mean.square().sum() / len(y),
            "born_dead": (dead_by_relu & ~self.born.positive).float().mean(),
            "moved": change.abs().max() if len(change) else torch.zeros(()),
        }
        for name, value in found.items():
            self._curves.setdefault(name, []).append(float(value))

    def packed(self) -> dict[str, str]:
        """Every curve."""
        return {name: packed(values) for name, values in self._curves.items()}

    def latents(self) -> dict[str, Any]:
        """Each latent's fate at birth, and its maximum pre-activation over training."""
        courses = torch.stack(self._maxima, dim=1).tolist()
        return {"born": names_of(self.born), "maxima": [packed(course, 2) for course in courses]}


def names_of(fate: Fates) -> list[str]:
    """alive, topk or relu, of each latent."""
    pairs = zip(fate.fired.tolist(), fate.positive.tolist(), strict=True)
    return ["alive" if fired else "topk" if positive else "relu" for fired, positive in pairs]


def compute(scale: Scale) -> Data:
    """Always trained afresh."""
    trained.cache_clear()
    return all_draws(scale)


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=9.6, height=4.2)
    lr, steps, gammas = data["settings"]["lr"], data["steps"], data["settings"]["slower_at"]
    colours = gamma_colours(data["gammas"])
    for gamma in gammas:
        for condition, rate, style in (("baseline", lr, "-"), ("slower", lr / 2, "--")):
            way = [rate * step for step in steps]
            label = f"γ = {gamma:g}, lr {rate:g}"
            line = {"color": colours[gamma], "label": label}
            band(axes[0, 0], way, courses(data, gamma, condition, *DEAD), style, **line)
            band(axes[0, 1], way, courses(data, gamma, condition, "bias"), style, **line)
    death_axis(axes[0, 0], "dead, fraction of latents")
    axes[0, 1].set_ylim(-0.03, 1.03)
    axes[0, 1].set_ylabel("share of the mean in the bias, b·μ / ‖μ‖²")
    for axis in axes.flat:
        axis.set_xlabel("lr × steps")
        axis.set_xlim(0, lr * steps[-1])
    axes[0, 0].set_title(f"The sweep at two rates, {data['draws']} draws", fontsize=10, loc="left")
    legend_below(figure, axes[0, 0], 3)
    return figure


def claims(data: Data) -> list[Claim]:
    """None: the paper says nothing of its rate here."""
    return []


FIGURE = Reproduction(name="dynamics", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
