"""survey_on(engine, source, folder, ...): the diagnosis of many layers, a task for each, on an engine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autopsae.activations.index import INDEX, read_index
from autopsae.activations.names import file_names
from autopsae.activations.store import open_layers
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.cluster.engine import Engine, Work
from autopsae.cluster.manifest import Job, run_jobs
from autopsae.defaults import ACCEPTABLE, AT_TOKENS, LR, STEPS, Repeated
from autopsae.diagnosis.merge import merge_parts
from autopsae.diagnosis.parameters import Asked
from autopsae.diagnosis.parts import collect_part
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.room import fit_layers
from autopsae.diagnosis.stored import load_diagnosis, save_diagnosis
from autopsae.diagnosis.survey import Survey, survey
from autopsae.progress import Progress
from autopsae.sae.sparsity import Sparsity, read_sparsity, topk_unless
from autopsae.urls import absolute, is_file_there, refuse_url


@whole_arguments("tokens", "split", "d_sae", "k", "at_tokens", "steps", "seed")
def survey_on(
    engine: Callable[[], Engine],
    source: str | Path,
    folder: str | Path,
    *,
    layers: Sequence[str] = (),
    tokens: int | None = None,
    split: int | None = None,
    lengths: Path | None = None,
    mask: Path | None = None,
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
    exact: bool = False,
    judged: Callable[[Diagnosis], None] | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Diagnose layers of a file or folder of activations: what `survey` says, each layer in a process of its own.

    engine: makes the engine (`cluster.open_engine`) where work is left; folder: keeps what is done, with a
    manifest.json that says what that is, so that the same call goes on where one was interrupted; all machines must
    see it and the source. tokens: at most so many of each layer, spread over the source (default: all); split: of a
    folder that `harvest` wrote, read all tokens of each layer in so many parts at once, which are then merged;
    lengths, mask: files, as for `open_layers`; judged: told each diagnosis as its layer ends; progress: told the
    layers that are done, as "jobs"; all other arguments are those of `survey`.

    Raises InputError as `survey` and `run_jobs`, and for `split` with what only a single pass can do.
    """
    refuse_url(folder, "a folder that can be locked", "name one on a disk that all machines see")
    source, folder = absolute(source), Path(folder).resolve()
    opened = open_layers(source, layers, lengths=lengths, mask=mask)
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
    )
    settings = _settings(asked)
    reading = {"lengths": lengths and str(lengths), "mask": mask and str(mask), "tokens": tokens}
    reading |= {"exact": exact, "repeated": repeated}
    size = fit_layers(opened.values(), asked, exact=exact, device=None)
    # The same sample in every process, whatever memory is free there.
    common = {"source": str(source), "sample_tokens": size and size.tokens, **settings}
    names = file_names([*opened])
    request = {"source": str(source), "layers": [*opened], "split": split, **reading, **common}
    results = {layer: folder / "layers" / f"{names[layer]}.json" for layer in opened}
    diagnoses = dict[str, Diagnosis]()

    def take(layer: str) -> None:
        diagnoses[layer] = load_diagnosis(results[layer])
        if judged:
            judged(diagnoses[layer])

    work: Work = diagnose_layer
    tasks: dict[str, dict[str, Any]]
    if split is None:
        tasks = {layer: {**common, **reading, "layer": layer} for layer in opened}
    else:
        _check_split(split, source, any([tokens is not None, exact, repeated != "keep", lengths, mask]))
        parts = _collect(engine, source, folder / "parts", names, common, split, progress)
        asked_of_parts = {name: value for name, value in settings.items() if name != "seed"}
        work, tasks = merge_layer, {layer: {**asked_of_parts, "parts": parts[layer]} for layer in opened}
    jobs = {
        layer: Job(task={**task, "result": str(results[layer])}, results=(results[layer],))
        for layer, task in tasks.items()
    }
    run_jobs(engine, work, jobs, folder, request=request, ended=take, progress=progress)
    return Survey(tuple(diagnoses[layer] for layer in opened))


def diagnose_layer(
    *,
    source: str,
    layer: str,
    result: str,
    tokens: int | None,
    lengths: str | None,
    mask: str | None,
    sparsity: dict[str, Any],
    **settings: Any,
) -> None:
    """The task of a layer: its diagnosis, in the file `result`."""
    if _is_done(result):
        return
    paths = {"lengths": lengths and Path(lengths), "mask": mask and Path(mask)}
    opened = open_layers(source, [layer], **paths)[layer]
    chosen = read_sparsity(Path(result), sparsity, settings["d_sae"])
    taken = opened if tokens is None else opened.take(tokens)
    [diagnosis] = survey({layer: taken}, sparsity=chosen, **settings)
    save_diagnosis(result, diagnosis)


def collect_layer(*, shards: list[str], result: str, layer: str, sample_tokens: int, seed: int) -> None:
    """The task of some shards of a layer: a part, in the file `result`."""
    if not _is_done(result):
        collect_part(shards, result, layers=[layer], sample_tokens=sample_tokens, seed=seed)


def merge_layer(*, parts: list[str], result: str, sparsity: dict[str, Any], **settings: Any) -> None:
    """The task of the parts of a layer: its diagnosis, in the file `result`."""
    if _is_done(result):
        return
    chosen = read_sparsity(Path(result), sparsity, settings["d_sae"])
    [diagnosis] = merge_parts(parts, sparsity=chosen, **settings)
    save_diagnosis(result, diagnosis)


def _is_done(result: str) -> bool:
    """Whether a process did the task, and died before it could say so: `run_jobs` asks for what is not there."""
    return Path(result).is_file()


def _settings(asked: Asked) -> dict[str, Any]:
    """What is asked, as arguments of a task; the sample's size is known later."""
    plain = {name: value for name, value in vars(asked).items() if name not in ("sparsity", "sample_tokens")}
    lists = {"alphas": [*asked.alphas], "ranks": [*asked.ranks]}
    return {**plain, **lists, "sparsity": asked.sparsity.to_dict()}


def _check_split(split: int, source: Path, otherwise: bool) -> None:
    if split < 1:
        raise InputError(f"split: expected at least one part, got {split}")
    if otherwise or not is_file_there(source / INDEX):
        raise InputError(
            "split: expected a folder that harvest wrote, all its tokens, births that are estimated, and no "
            "padding; leave out what is not so, or split"
        )


def _collect(
    engine: Callable[[], Engine],
    source: Path,
    folder: Path,
    names: dict[str, str],
    common: dict[str, Any],
    split: int,
    progress: Progress | None,
) -> dict[str, list[str]]:
    """Make the parts of each layer, and return their paths."""
    shards = [str(source / shard["file"]) for shard in read_index(source)["shards"]]
    groups = [shards[len(shards) * n // split : len(shards) * (n + 1) // split] for n in range(split)]
    sample = {name: common[name] for name in ("sample_tokens", "seed")}
    jobs = dict[str, Job]()
    for layer, name in names.items():
        for number, group in enumerate(group for group in groups if group):
            result = folder / f"{name}-{number}.safetensors"
            task = {**sample, "layer": layer, "shards": group, "result": str(result)}
            jobs[f"{layer} {number}"] = Job(task=task, results=(result,))
    request = {"source": str(source), "layers": [*names], "split": split, **sample}
    run_jobs(engine, collect_layer, jobs, folder, request=request, progress=progress)
    return {layer: [j.task["result"] for j in jobs.values() if j.task["layer"] == layer] for layer in names}
