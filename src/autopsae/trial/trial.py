"""trial(tokens, ...): remedies trained side by side on a layer for a while, and one of them prescribed."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens
from autopsae.defaults import ACCEPTABLE, Prefer
from autopsae.diagnosis.prescription import Prescription
from autopsae.kinds import anything, check_kind, fields, nothing_or, number, whole
from autopsae.passes import known_tokens
from autopsae.progress import Progress
from autopsae.reading import input_errors, parse, read_bytes
from autopsae.remedies.remedy import Remedy
from autopsae.run.data import count_tokens
from autopsae.run.finished import is_present
from autopsae.run.folder import Entry
from autopsae.run.many import Elsewhere, run_sweep
from autopsae.run.observer import Observer
from autopsae.run.portions import Portions
from autopsae.sae.init import row_length
from autopsae.sae.sparsity import Sparsity
from autopsae.training.config import TrainConfig
from autopsae.trial.budget import Budget
from autopsae.trial.candidate import Candidate, slower_of
from autopsae.trial.choose import choose, findings_of
from autopsae.trial.entered import Entered
from autopsae.trial.later import Curve, expect_later
from autopsae.trial.result import Outcome, Point, Trial
from autopsae.words import fvu_text

_MEASURED = fields(
    {
        "step": whole(0),
        "tokens": whole(),
        "dead": number(),
        "fvu_raw": nothing_or(number()),
        "fvu_typical": nothing_or(number()),
    },
    others=anything,
)


@whole_arguments("d_sae", "trial_steps", "held_out", "seed")
def trial(
    tokens: Tokens,
    candidates: Sequence[Candidate | Remedy | str] | None = None,
    *,
    config: TrainConfig,
    d_sae: int,
    sparsity: Sparsity,
    trial_steps: int | None = None,
    documents: Sequence[int] | NDArray[Any] | None = None,
    held_out: int | None = None,
    acceptable: float = ACCEPTABLE,
    prefer: Prefer | None = None,
    layer: str = "layer",
    seed: int = 0,
    folder: str | Path | None = None,
    announce: Callable[[str], object] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
    elsewhere: Elsewhere | None = None,
) -> Trial:
    """Train an SAE under each candidate for a while, all on the same batches, and prescribe one: the lowest raw FVU
    of those that are expected to leave at most `acceptable` dead at the end of the training that it is for, judged
    by tokens that none was trained on.

    tokens: raw. candidates: remedies, each with a way in which `b_dec` learns, or names (`candidates_by_name`);
    None for the usual ones.
    config: the training that the prescription is for; the trial has its settings, but fewer steps, a higher
    learning rate, smaller batches and no decay (`Budget`). d_sae, sparsity: of the SAE. trial_steps: steps of each
    candidate; None for as many as a tenth of the training pays for, but at least 1,000. documents: the number of
    each token's document (default: what the source says); whole documents are then held out. held_out: number of
    held-out tokens; None for a tenth, at most 20,480. acceptable: fraction of the latents that may be dead. prefer:
    "error" or "life" where only one counts (`choose`). layer: its name. seed: of rows and order. folder: where the
    trial is kept: one that was interrupted goes on from there, and one that is finished is read again; it holds the
    trained SAEs too. announce: told the cost before training. progress: told ("training", steps done, all steps).
    device: where to compute. elsewhere: what trains the candidates instead of this process, each by itself, with
    `train_candidates`; it needs a folder.

    Raises InputError for two candidates of one name or none, for a name that is not known, where no candidate can
    be trained, for a folder of another trial, and as `split_tokens`, `born` and `run_sweep`.
    """
    _check(acceptable, prefer)
    if elsewhere and folder is None:
        raise InputError("trial: expected a folder with `elsewhere`, which all processes see, got none")
    entered = Entered.of(
        tokens,
        candidates,
        config=config,
        d_sae=d_sae,
        sparsity=sparsity,
        trial_steps=trial_steps,
        documents=documents,
        held_out=held_out,
        layer=layer,
        seed=seed,
        device=device,
    )
    budget, training = entered.budget, entered.training
    if announce:
        announce(str(budget))
    entries = entered.entries()
    # Before they are trained: they say how SAEs are born.
    prescriptions = [
        _prescription(one, entry, layer=layer, lr_steps=config.lr * config.steps)
        for one, entry in zip(entered.candidates, entries, strict=True)
    ]
    outcomes = _outcomes(entered, entries, folder=folder, progress=progress, elsewhere=elsewhere)
    chosen, why = choose(outcomes, acceptable=acceptable, prefer=prefer)
    place = [outcome.name for outcome in outcomes].index(chosen.name)
    n_held_out = count_tokens(entered.held_out)
    return Trial(
        outcomes=tuple(outcomes),
        chosen=chosen.name,
        prescription=replace(prescriptions[place], reason=_reason(chosen, why, budget, n_held_out)),
        findings=findings_of(chosen, outcomes, acceptable=acceptable, held_out=n_held_out),
        budget=budget,
        lr=budget.age * config.lr,
        seed=seed,
        acceptable=acceptable,
        prefer=prefer,
        tokens=known_tokens(training) or count_tokens(training),
        held_out=n_held_out,
        by_document=entered.by_document,
    )


def _check(acceptable: float, prefer: str | None) -> None:
    if not 0 <= acceptable <= 1 or prefer not in (None, "life", "error"):
        raise InputError(
            f"trial: expected acceptable in [0, 1] and prefer life, error or None, got {acceptable} and {prefer!r}"
        )


def _prescription(candidate: Candidate, entry: Entry, **about: Any) -> Prescription:
    """What makes the SAE again that was just born as the candidate says."""
    sae = entry.member.sae
    return Prescription(
        remedy=candidate.remedy,
        bias=candidate.bias,
        encoder_scale=row_length(sae) if candidate.fit_encoder else 1.0,
        reason="",
        **about,
        d_sae=sae.d_sae,
        sparsity=sae.sparsity,
        scale=sae.scale,
    )


def _outcomes(
    entered: Entered,
    entries: Sequence[Entry],
    *,
    folder: str | Path | None,
    progress: Progress | None,
    elsewhere: Elsewhere | None,
) -> list[Outcome]:
    """Train all, and read what held-out tokens said of each."""
    budget = entered.budget
    with ExitStack() as stack:
        out = Path(stack.enter_context(TemporaryDirectory()) if folder is None else folder)
        begun = any(is_present(out / name) for name in ("portions.json", "sweep.json"))
        result = run_sweep(
            entries,
            entered.training,
            entered.held_out,
            out,
            portions=Portions.of(entries).split(len(entries)) if elsewhere else None,
            plan=entered.plan(is_kept=folder is not None),
            resume=begun,
            observer=Observer(progress=progress),
            elsewhere=elsewhere,
        )
        members = {member["name"]: member for member in result["members"]}
        curves = {
            name: _curve(out / member["folder"] / "held_out.jsonl", _point(budget.steps, member))
            for name, member in members.items()
            if member["diverged"] is None
        }
    later = expect_later(curves, slower_of(entered.candidates), budget)
    return [_outcome(member, curves.get(name), later.get(name)) for name, member in members.items()]


def _outcome(summary: dict[str, Any], curve: Curve | None, later: Point | None) -> Outcome:
    """The end is measured on all held-out tokens; on the way, on some of them."""
    birth = _point(0, summary["birth"])
    if curve is None:
        return Outcome(name=summary["name"], points=(birth,), diverged=summary["diverged"])
    between = [point for point in curve.points if point.step < curve.end.step]
    return Outcome(name=summary["name"], points=(birth, *between, curve.end), later=later)


def _curve(path: Path, end: Point) -> Curve:
    """What was measured on the way. Raises InputError for a file that is missing or damaged."""
    with input_errors(path, "the measurements of a trial", "try the candidates again in a new folder"):
        lines = [parse(line) for line in read_bytes(path).splitlines()]
    for line in lines:
        check_kind(path, line, _MEASURED)
    return Curve(points=tuple(_point(line["step"] + 1, line) for line in lines) or (end,), end=end)


def _point(step: int, numbers: dict[str, Any]) -> Point:
    return Point(
        step=step,
        tokens=numbers["tokens"],
        dead=numbers["dead"],
        fvu_raw=numbers["fvu_raw"],
        fvu_typical=numbers["fvu_typical"],
    )


def _reason(chosen: Outcome, why: str, budget: Budget, held_out: int) -> str:
    end, later = chosen.end, chosen.later
    assert later is not None  # whoever diverged is not chosen
    then = f"; {later.dead:.1%} and {fvu_text(later.fvu_raw)} are expected after {budget.for_steps:,}"
    age = f", which age as {budget.old:,} of the training do," if budget.age > 1 else ""
    return (
        f"{why}: after {budget.steps:,} steps{age} {end.dead:.1%} are dead on {held_out:,} held-out tokens, with a "
        f"raw FVU of {fvu_text(end.fvu_raw)}{then if budget.for_steps > budget.steps else ''}"
    )
