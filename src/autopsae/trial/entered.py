"""What a trial trains: tokens that are parted into two, a budget, and the candidates, which are born here."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens
from autopsae.remedies.remedy import Remedy
from autopsae.run.folder import Entry, Plan
from autopsae.run.many import train_group
from autopsae.run.members import Layer
from autopsae.run.observer import Observer
from autopsae.sae.sparsity import Sparsity
from autopsae.training.config import TrainConfig
from autopsae.training.objective import L0Target
from autopsae.training.sources import Member
from autopsae.trial.budget import Budget, config_of_trial
from autopsae.trial.candidate import Candidate, candidates_by_name, usual_candidates
from autopsae.trial.split import split_tokens


@dataclass(frozen=True, kw_only=True)
class Entered:
    """The candidates of a trial, and the tokens for them."""

    training: Tokens
    """Those that all train on."""
    held_out: Tokens
    """Those that judge."""
    by_document: bool
    """Whether these are whole documents."""
    candidates: Sequence[Candidate]
    """All of the trial."""
    budget: Budget
    """The steps of each."""
    config: TrainConfig
    """The training that the trial is for."""
    read: Layer
    """The statistics of the training tokens."""
    d_sae: int
    """Latents of each SAE."""
    sparsity: Sparsity
    """Which of them fire."""
    layer: str
    """The layer's name."""
    seed: int
    """Of rows and order."""

    @staticmethod
    @whole_arguments("d_sae", "trial_steps", "held_out", "seed")
    def of(
        tokens: Tokens,
        candidates: Sequence[Candidate | Remedy | str] | None = None,
        *,
        config: TrainConfig,
        d_sae: int,
        sparsity: Sparsity,
        trial_steps: int | None = None,
        documents: Sequence[int] | NDArray[Any] | None = None,
        held_out: int | None = None,
        layer: str = "layer",
        seed: int = 0,
        device: str | None = None,
    ) -> "Entered":
        """Read the tokens, and find the candidates. The arguments are those of `trial`; raises InputError as it."""
        training, held, by_document = split_tokens(tokens, documents, held_out=held_out, seed=seed)
        read = Layer(training, device=device)
        names = usual_candidates(sparsity) if candidates is None else candidates
        entered = [_candidate(one, read, seed) for one in names]
        _check([candidate.name for candidate in entered])
        return Entered(
            training=training,
            held_out=held,
            by_document=by_document,
            candidates=entered,
            budget=Budget.of(len(entered), config, steps=trial_steps),
            config=config,
            read=read,
            d_sae=d_sae,
            sparsity=sparsity,
            layer=layer,
            seed=seed,
        )

    def entries(self, names: Collection[str] | None = None) -> list[Entry]:
        """The candidates, born; those of these names, None for all."""
        return [self._entry(one) for one in self.candidates if names is None or one.name in names]

    def plan(self, *, is_kept: bool) -> Plan:
        """What is measured on the way. is_kept: whether the trial has a folder of its own to go on in."""
        every = self._config_of(self.candidates[0]).record_every
        return Plan(checkpoint_every=every if is_kept else None, evaluate_every=every)

    def _config_of(self, candidate: Candidate) -> TrainConfig:
        fitted = candidate.fit_encoder
        return config_of_trial(self.config, candidate.bias, self.budget, seed=self.seed, fitted=fitted)

    def _entry(self, candidate: Candidate) -> Entry:
        config, sparsity = self._config_of(candidate), self.sparsity
        l0 = config.penalty.l0 if isinstance(config.penalty, L0Target) else float(sparsity.l0 or 0)
        sae = self.read.born(
            candidate.remedy,
            d_sae=self.d_sae,
            sparsity=sparsity,
            l0=l0,
            seed=config.seed,
            fit_encoder=candidate.fit_encoder,
        )
        about = {"layer": self.layer, "candidate": candidate.name, "d_sae": self.d_sae}
        about |= {"sparsity": sparsity.to_dict()}
        return Entry(member=Member(sae=sae, config=config, name=candidate.name), about=about, data=self.layer)


def train_candidates(
    entered: Entered, names: Collection[str], number: int, folder: str | Path, *, observer: Observer | None = None
) -> None:
    """Train the candidates of these names, which are group `number` of a trial that another process has begun in
    `folder` (`trial(elsewhere=)`). entered: as in that process. Raises InputError as `train_group`.
    """
    train_group(
        entered.entries(names),
        entered.training,
        entered.held_out,
        folder,
        number,
        plan=entered.plan(is_kept=True),
        observer=observer,
    )


def _candidate(one: Candidate | Remedy | str, read: Layer, seed: int) -> Candidate:
    if isinstance(one, str):
        return candidates_by_name(read, (one,), seed=seed)[0]
    return Candidate(remedy=one) if isinstance(one, Remedy) else one


def _check(names: Sequence[str]) -> None:
    if not names or len({*names}) < len(names):
        raise InputError(f"trial: expected candidates, each with a name of its own, got {[*names]}")
