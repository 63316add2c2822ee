"""diagnose --trial: remedies are trained on each layer for a while, and one of them is prescribed."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopsae.activations.names import file_names
from autopsae.activations.store import Activations
from autopsae.arrays import InputError
from autopsae.cli.firing import sparsity_of
from autopsae.cli.options.diagnose import DiagnoseOptions, Trialing
from autopsae.cli.printing import print_note
from autopsae.cli.terminal import progress_bar, progress_on
from autopsae.cli.trial_on import spread_candidates, training_asked, training_for
from autopsae.diagnosis.survey import Survey
from autopsae.passes import same_passes
from autopsae.training.config import TrainConfig
from autopsae.trial.budget import Budget
from autopsae.trial.candidate import usual_candidates
from autopsae.trial.result import Trial
from autopsae.trial.split import MOST
from autopsae.trial.trial import trial


def check_trial(options: DiagnoseOptions) -> None:
    """InputError for a trial of a sparsity without a penalty, for settings that no training can have, and for
    options of a trial without it.
    """
    asked, usual = options.trialing, Trialing()
    if not asked.trial:
        if asked != (replace(usual, batch_tokens=asked.batch_tokens) if options.plan else usual):
            raise InputError(
                "--prefer, --trial-folder, --batch-tokens: expected --trial with them (or --plan with the last), "
                "got none"
            )
        return
    if sparsity_of(options.firing).usual_penalty == "l1":
        raise InputError(
            "--trial: expected a sparsity that is trained without an L1 coefficient, got relu; in Python, "
            "autopsae.trial.trial takes a config with a penalty"
        )
    training_of(options)


def training_of(options: DiagnoseOptions) -> TrainConfig:
    """The training that the prescription, a trial and a plan are for."""
    return training_for(sparsity_of(options.firing), **training_asked(options))


def tokens_of_trial(options: DiagnoseOptions) -> int:
    """Tokens of a layer that a trial reads at most: so many that no step sees a token again, and those held out.
    If more are diagnosed, all of these.
    """
    budget = Budget.of(len(usual_candidates(sparsity_of(options.firing))), training_of(options))
    return max(options.tokens, budget.steps * budget.batch_tokens + MOST)


def run_trials(
    layers: Mapping[str, Activations], options: DiagnoseOptions, device: str | None
) -> Iterator[tuple[str, Trial]]:
    """(name, trial) of each layer, one after the other; the candidates of a layer on an engine, if one is asked
    for.
    """
    asked, config, tokens = options.trialing, training_of(options), tokens_of_trial(options)
    for name, file in file_names([*layers]).items():
        with progress_bar(f"trial of {name}") as (bar, task):
            folder, progress = _folder_of(options, file), progress_on(bar, task)
            elsewhere = None
            if options.spreading.on:
                assert folder is not None
                elsewhere = spread_candidates(options, name, folder, tokens, progress)
            said = trial(
                same_passes(layers[name].take(tokens)),
                config=config,
                d_sae=options.d_sae,
                sparsity=sparsity_of(options.firing),
                acceptable=options.acceptable,
                prefer=asked.prefer,
                layer=name,
                seed=options.seed,
                folder=folder,
                announce=lambda line: print_note(line, bar.console),
                progress=progress,
                device=device,
                elsewhere=elsewhere,
            )
        yield name, said


def _folder_of(options: DiagnoseOptions, file: str) -> Path | None:
    """Where the trial of a layer is kept. On an engine it must be, so that all processes see it."""
    if options.trialing.trial_folder is not None:
        return options.trialing.trial_folder.resolve() / file
    return options.spreading.work.resolve() / "trials" / file if options.spreading.work else None


def content_with_trials(survey: Survey, trials: Mapping[str, Trial]) -> dict[str, Any]:
    """What `Survey.save` writes, with the trials by layer under "trials", where there are any."""
    said = {name: one.to_dict() for name, one in trials.items()}
    return {**survey.to_dict(), **({"trials": said} if said else {})}
