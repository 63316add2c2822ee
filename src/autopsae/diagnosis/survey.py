"""survey(layers, ...): the diagnoses of several layers side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autopsae.arrays import InputError, Tokens, check_device
from autopsae.defaults import ACCEPTABLE, AT_TOKENS, LR, STEPS, Repeated
from autopsae.diagnosis.diagnose import diagnose_as_asked
from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.parameters import Asked
from autopsae.diagnosis.plan import Planner
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.room import SampleSize, fit_layers
from autopsae.diagnosis.verdict import verdict
from autopsae.passes import known_tokens, spread_over
from autopsae.progress import Progress
from autopsae.sae.sparsity import Sparsity, topk_unless
from autopsae.saved import save_result
from autopsae.tables import Result, html_table, import_pandas
from autopsae.training.config import TrainConfig
from autopsae.training.plan import TrainingPlan
from autopsae.words import printable

FORMAT = "autopsae-diagnosis"

COMPARED = ("none", "mean", "median", "zscore", "whiten")
"""The remedies that every diagnosis measures."""

_LINES = 10  # of `str(survey)`


@dataclass(frozen=True, repr=False)
class Survey(Result):
    """Diagnoses in the model's order; iterate over them, or ask for one by its layer's name."""

    diagnoses: tuple[Diagnosis, ...]
    """One for each layer."""
    plans: tuple[TrainingPlan, ...] = ()
    """What training an SAE would take, one for each kind of layer; () where that was not asked."""

    def __iter__(self) -> Iterator[Diagnosis]:
        return iter(self.diagnoses)

    def __len__(self) -> int:
        return len(self.diagnoses)

    def __getitem__(self, layer: str) -> Diagnosis:
        for diagnosis in self.diagnoses:
            if diagnosis.layer == layer:
                return diagnosis
        raise KeyError(layer)

    @property
    def verdict(self) -> tuple[str, ...]:
        """A sentence on all layers, and one for each remedy that is prescribed."""
        return tuple(verdict(self.diagnoses))

    def to_dict(self) -> dict[str, Any]:
        """{"format", "version", "verdict": sentences, "training": plans or None, "layers": [one dictionary
        per layer]}.
        """
        return {
            "format": FORMAT,
            "version": 1,
            "verdict": [*self.verdict],
            "training": [asdict(plan) for plan in self.plans] or None,
            "layers": [diagnosis.to_dict() for diagnosis in self.diagnoses],
        }

    def to_frame(self) -> Any:
        """A pandas frame with a row per layer; nested names are joined by dots (`birth.median.dead`).

        Raises InputError where pandas is missing.
        """
        return import_pandas().concat([diagnosis.to_frame() for diagnosis in self.diagnoses], ignore_index=True)

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, with what wrote it (`provenance`), whole or not at all."""
        save_result(path, self.to_dict())

    def _html_table(self) -> str:
        header = ["layer", "gamma", "rank", *(f"dead: {name}" for name in COMPARED), "prescription"]
        rows = [
            [
                d.layer,
                f"{d.severity.gamma:.2f}",
                f"{d.severity.effective_rank_fraction:.1%}",
                *(f"{d.birth[name].dead:.1%}" for name in COMPARED),
                d.prescription.remedy.name,
            ]
            for d in self.diagnoses
        ]
        gravest = gravest_findings(self.diagnoses)
        notes = [str(finding) for _, _, finding in gravest]
        if len(self) > 1:
            notes = [
                f"on {len(layers)} of {len(self)} layers, gravest on {layer}: {finding}"
                for layers, layer, finding in gravest
            ]
        return html_table(header, rows, notes, self.verdict)

    def __str__(self) -> str:
        said = [printable(sentence) for sentence in self.verdict] if len(self) > 1 else []
        lines = [f"{printable(d.layer)}: gamma {d.severity.gamma:.2f}, {d.prescription.instruction}" for d in self]
        more = [f"and {len(lines) - _LINES} layers more"] if len(lines) > _LINES else []
        return "\n".join([*said, *lines[:_LINES], *more])


def survey(
    layers: Mapping[str, Tokens],
    *,
    d_sae: int = 8192,
    k: int | None = None,
    sparsity: Sparsity | None = None,
    at_tokens: int = AT_TOKENS,
    alphas: Sequence[float] = (),
    ranks: Sequence[int] = (),
    acceptable: float = ACCEPTABLE,
    lr: float = LR,
    steps: int = STEPS,
    repeated: Repeated = "keep",
    seed: int = 0,
    exact: bool = True,
    sample_tokens: int | None = None,
    plan: TrainConfig | None = None,
    device: torch.device | str | None = None,
    announce: Callable[[str], None] | None = None,
    judged: Callable[[Diagnosis], None] | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Diagnose each layer of a mapping name -> tokens; all other arguments are those of `diagnose`.

    plan: a training of which is measured what it would take, after a layer is judged (`Survey.plans`); announce:
    told in a line what will be read, and how much memory it takes, before it starts (where the widths are known
    before a pass); judged: told each diagnosis once it is made, so that those before a layer that fails are not
    lost; progress: told the tokens of each pass, as "layer 1 of 3: NAME, statistics".

    Raises InputError where there is no layer, and for arguments or tokens that `diagnose` refuses, with the name of
    the layer.
    """
    if not isinstance(layers, Mapping) or not all(isinstance(name, str) for name in layers):
        raise InputError("survey: expected {name: tokens}, with a text as the name of a layer; diagnose takes one")
    if not layers:
        raise InputError("survey: expected at least one layer, got none")
    asked = Asked(
        d_sae=d_sae,
        sparsity=topk_unless(sparsity, k),
        at_tokens=at_tokens,
        alphas=alphas,
        ranks=ranks,
        acceptable=acceptable,
        lr=lr,
        steps=steps,
        seed=seed,
        sample_tokens=sample_tokens,
    )
    check_device(device, torch.float64)
    size = fit_layers(layers.values(), asked, exact=exact, device=device)
    if size:
        asked = replace(asked, sample_tokens=size.tokens)
        if announce:
            announce(_plan_line(layers, size))
    planner = Planner(plan, device) if plan else None
    diagnoses = []
    for number, (layer, tokens) in enumerate(layers.items(), 1):
        try:
            told = _of_layer(progress, f"layer {number} of {len(layers)}: {layer}")
            diagnosis = diagnose_as_asked(
                tokens,
                asked,
                layer=layer,
                repeated=repeated,
                exact=exact,
                device=device,
                progress=told,
                planner=planner,
            )
        except InputError as error:
            raise InputError(f"layer {layer!r}: {error}") from error
        diagnoses.append(diagnosis)
        if judged:
            judged(diagnosis)
    return Survey(tuple(diagnoses), plans=planner.plans if planner else ())


def gravest_findings(diagnoses: Sequence[Diagnosis]) -> list[tuple[list[str], str, Finding]]:
    """(the layers that have it, the layer where it is gravest, that finding) for each kind of finding."""
    kinds: dict[str, list[tuple[str, Finding]]] = {}
    for d in diagnoses:
        for finding in d.findings:
            kinds.setdefault(finding.name, []).append((d.layer, finding))
    worst = [(pairs, max(pairs, key=lambda pair: pair[1].gravity)) for pairs in kinds.values()]
    return [([layer for layer, _ in pairs], layer, finding) for pairs, (layer, finding) in worst]


def _plan_line(layers: Mapping[str, Tokens], size: SampleSize) -> str:
    """What will be read, and what it takes."""
    known = [known_tokens(tokens) for tokens in layers.values()]
    of = [spread_over(tokens) or number for tokens, number in zip(layers.values(), known, strict=True)]
    tokens = ""
    if None not in known:
        most, source = max(number for number in known if number), max(number for number in of if number)
        tokens = f", {most:,} tokens of each" + (f", spread over all {source:,}" if source > most else "")
    if len(layers) == 1:
        return f"1 layer{tokens.replace(' of each', '')}; {size}; no activations are written"
    return f"{len(layers)} layers{tokens}, one after the other; {size}; no activations are written"


def _of_layer(progress: Progress | None, layer: str) -> Progress | None:
    """Progress of one layer, whose stages are named after it."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{layer}, {stage}", done, total)
