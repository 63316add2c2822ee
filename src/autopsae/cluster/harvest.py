"""harvest_text_on(engine, model, documents, folder, work, ...): replicas of a model over parts of a text."""

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from autopsae.activations.batches import parts_of
from autopsae.activations.harvest import digest_of, request_of
from autopsae.activations.harvest_text import TextToHarvest, text_to_harvest
from autopsae.activations.index import INDEX, VERSION, check_shards, read_index, shard_name
from autopsae.activations.masks import keep_mask
from autopsae.activations.presets import load_model
from autopsae.activations.remote import check_shards_there
from autopsae.activations.room import Room, check_disk
from autopsae.activations.shards import SHARD_TOKENS, ShardWriter
from autopsae.activations.store import Activations, open_layers
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.cluster.engine import Engine
from autopsae.cluster.harvest_part import harvest_part, load_part, save_text
from autopsae.cluster.manifest import Job, run_jobs
from autopsae.disk import LOCK, hold_lock
from autopsae.progress import Progress
from autopsae.urls import absolute, refuse_url, url_of

JOBS = 16
"""Jobs that a harvest is cut into, unless told otherwise."""


@whole_arguments("context", "batch_size", "tokens", "shard_tokens", "jobs")
def harvest_text_on(
    engine: Callable[[], Engine],
    model: str,
    documents: Iterable[str],
    folder: str | Path,
    work: str | Path,
    *,
    layers: Sequence[str] | None = None,
    context: int = 128,
    batch_size: int = 8,
    tokens: int | None = None,
    skip_first: bool = False,
    skip_ids: Collection[int] = (),
    dtype: torch.dtype = torch.float32,
    shard_tokens: int = SHARD_TOKENS,
    jobs: int = JOBS,
    device: str = "cpu",
    announce: Callable[[Room], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Activations]:
    """Harvest a text as `harvest_text`, by several processes at once, each with the model: the same store.

    The documents are read and cut here, once. A batch is what it would be in one process, and each job writes the
    shards of its batches into `folder`, so that shards and index are those of one process, to the bit where the
    machines compute alike.

    engine: makes the engine (`cluster.open_engine`) where work is left; model: a name or path that `load_model`
    takes in every process; work: a folder that keeps what is done, with a manifest.json that says what that is. The
    same call goes on where one was interrupted, after the last shard that each job wrote. All machines must see it
    and `folder`. jobs: the shards are cut into at most so many jobs; device: where the model of a job runs;
    announce: told what the harvest will take; progress: told the jobs that are done, as "jobs"; all other arguments
    are those of `harvest_text`.

    Raises InputError as `harvest_text` and `run_jobs`, and for a job whose model has other weights than that here.
    """
    if jobs < 1:
        raise InputError(f"jobs: expected at least one, got {jobs}")
    refuse_url(work, "a folder that can be locked", "name one on a disk that all machines see")
    folder, work = absolute(folder), Path(work).resolve()
    if work == folder:
        raise InputError(f"work: expected another folder than that of the shards, got {work} for both")
    loaded = load_model(model)
    text = text_to_harvest(
        loaded,
        documents,
        layers=layers,
        context=context,
        batch_size=batch_size,
        tokens=tokens,
        skip_first=skip_first,
        skip_ids=skip_ids,
    )
    room = text.room(loaded, dtype, shard_tokens=shard_tokens)
    if announce:
        announce(room)
    request = request_of(
        loaded.model, text.batches, text.points, dtype=dtype, tokens=text.tokens, request=text.request
    )
    del loaded  # the processes need its memory
    with hold_lock(folder / LOCK, what=folder):
        writer = ShardWriter(folder, request=request, shard_tokens=shard_tokens, in_parts=True)
        if not writer.complete:
            check_disk(folder, room)
            placed = str(Path(model).expanduser().resolve()) if Path(model).expanduser().exists() else model
            harvest = _Harvest(text, request, writer, work, shard_tokens, placed, device)
            harvest.run(engine, jobs, progress)
    opened = open_layers(folder)
    return {point: opened[point] for point in text.points}


@dataclass(frozen=True)
class _Shard:
    """A shard that is to be written."""

    first: int
    """Number of its first batch."""
    end: int
    """Number of the batch after its last one."""
    tokens: int
    """Tokens that it will hold."""


class _Harvest:
    """A harvest whose shards are not all written."""

    def __init__(
        self,
        text: TextToHarvest,
        request: dict[str, Any],
        writer: ShardWriter,
        work: Path,
        shard_tokens: int,
        model: str,
        device: str,
    ) -> None:
        self._text, self._request, self._writer, self._work = text, request, writer, work
        self._shard_tokens, self._model, self._device = shard_tokens, model, device

    def run(self, engine: Callable[[], Engine], jobs: int, progress: Progress | None) -> None:
        """Write the shards that are left, each job some of them, and mark the harvest as complete."""
        writer, begun = self._writer, self._writer.batches_done
        shards, batches_done, inputs = self._cut(begun)
        if not writer.tokens and not shards:
            raise InputError("expected at least one token to keep, got none; check `tokens` and the text")
        asked = {"out": str(writer.folder), "shard_tokens": self._shard_tokens, "jobs": jobs}
        made = self._jobs(shards, min(jobs, len(shards)))
        run_jobs(
            engine,
            harvest_part,
            made,
            self._work,
            request={**self._request, **asked},
            look=lambda job: _forget_lost(job, writer.folder),
            progress=progress,
        )
        parts = [load_part(job.results[0]) for job in made.values()]
        _check_plan(parts, shards, writer)
        writer.join(parts, batches_done=batches_done, inputs=inputs)

    def _cut(self, begun: int) -> tuple[list[_Shard], int, str]:
        """(the shards from batch `begun` on, number of batches, digest of all batches), as one process cuts."""
        shards, first, held, kept, digests = list[_Shard](), begun, 0, self._writer.tokens, sha256()
        number = 0
        for number, batch in enumerate(self._text.batches, 1):
            digests.update(digest_of(parts_of(batch).items()).encode())
            if number <= begun:
                continue
            held += min(_count_tokens(self._text, batch), self._text.tokens - kept - held)
            if held >= self._shard_tokens:
                shards.append(_Shard(first, number, held))
                first, held, kept = number, 0, kept + held
            if kept + held == self._text.tokens:
                break
        if held:
            shards.append(_Shard(first, number, held))
        return shards, number, digests.hexdigest()

    def _jobs(self, shards: Sequence[_Shard], count: int) -> dict[str, Job]:
        """{name: job} for all shards, about equally many each."""
        text, request = self._text, self._request
        common = {
            "model": self._model,
            "device": self._device,
            "text": str(save_text(self._work, text)),
            "points": text.points,
            "dtype": request["dtype"],
            "keep": {name: text.request[name] for name in ("skip_first", "skip_ids")},
            "shard_tokens": self._shard_tokens,
            "folder": str(self._writer.folder),
            "weights": request["weights"],
        }
        made = dict[str, Job]()
        written, size = len(self._writer.shards_and_layers()["shards"]), text.batches.batch_size
        for number in range(count):
            first, end = len(shards) * number // count, len(shards) * (number + 1) // count
            mine = shards[first:end]
            sequences = [mine[0].first * size, mine[-1].end * size]
            # Where one process has added shards meanwhile, others are left: a name tells what a part has.
            name = f"{written + first:05d}-{sequences[0]}-{sequences[1]}"
            result = self._work / "parts" / f"{name}.json"
            task = {
                **common,
                "batch_size": size,
                "sequences": sequences,
                "tokens": sum(shard.tokens for shard in mine),
                "first_shard": written + first,
                "result": str(result),
            }
            made[name] = Job(task=task, results=(result,))
        return made


def _count_tokens(text: TextToHarvest, batch: dict[str, Any]) -> int:
    """How many tokens of a batch are kept."""
    return int(keep_mask(batch, text.keep, batch["input_ids"].shape).sum())


def _check_plan(parts: Sequence[dict[str, Any]], planned: Sequence[_Shard], writer: ShardWriter) -> None:
    """InputError unless the parts have the shards that were planned, after those that are written."""
    mine = [(shard["file"], shard["tokens"]) for part in parts for shard in part["shards"]]
    written = len(writer.shards_and_layers()["shards"])
    wanted = [(shard_name(number), shard.tokens) for number, shard in enumerate(planned, written)]
    if mine != wanted:
        total, got = (sum(tokens for _, tokens in some) for some in (wanted, mine))
        raise InputError(
            f"{writer.folder}: expected parts with the shards that were planned ({total:,} tokens), got others "
            f"({got:,} tokens); harvest into a new folder"
        )


def _forget_lost(job: Job, folder: Path) -> None:
    """Let a job begin again whose shards, all or those so far, are no longer in `folder` as they were written."""
    [result] = job.results
    state = result.with_suffix("")
    try:
        if result.exists():
            part = {**load_part(result), "version": VERSION}
        elif (state / INDEX).exists():
            part = read_index(state)
        else:
            return
        check_shards_there(url, part) if (url := url_of(folder)) else check_shards(folder, part)
    except InputError:
        shutil.rmtree(state, ignore_errors=True)
        result.unlink(missing_ok=True)
