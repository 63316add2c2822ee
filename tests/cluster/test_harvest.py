"""Replicas of a model on engines write the store that one process writes, whatever becomes of them."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from autopsae.activations.harvest_text import harvest_text
from autopsae.activations.presets import load_model
from autopsae.activations.shards import ShardWriter
from autopsae.arrays import InputError
from autopsae.cli.verbs import run
from autopsae.cluster import harvest_part as parts
from autopsae.cluster.engine import Ended, Task, Work, attempt, open_engine
from autopsae.cluster.harvest import harvest_text_on
from autopsae.disk import LOCK, hold_lock
from autopsae.saved import save_object
from tests.activations.test_presets import WORDS, gpt2_folder
from tests.cluster.test_engines import ENGINES, WORKER, killer

pytest.importorskip("transformers", reason="needs the extra [models]")

TOKENS = 700
ASKED: dict[str, Any] = {"context": 16, "batch_size": 3, "tokens": TOKENS, "shard_tokens": 90, "skip_ids": [4]}
DOCUMENTS = [" ".join(Random(n).choices(WORDS[3:], k=20 + n % 7)) for n in range(60)]


class Here:
    """An engine in this process, which stops before task `stop`."""

    def __init__(self, stop: int = 10**6) -> None:
        self.ran, self._stop = list[int](), stop

    def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
        for number, task in enumerate(tasks):
            if len(self.ran) == self._stop:
                raise KeyboardInterrupt
            self.ran.append(task["first_shard"])
            yield number, attempt(work, json.loads(json.dumps(task)))


@pytest.fixture(autouse=True)
def forget_model() -> None:
    parts._load_once.cache_clear()


@pytest.fixture
def model(tmp_path: Path) -> str:
    gpt2_folder(tmp_path / "model")
    return str(tmp_path / "model")


def spread(engine: Any, model: str, folder: Path, *, work: str = "w", jobs: int = 4, **more: Any) -> dict[str, Any]:
    asked = {**ASKED, **more}
    return harvest_text_on(lambda: engine, model, DOCUMENTS, folder, folder.parent / work, jobs=jobs, **asked)


def die_at_batch_6(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Once, when the sixth batch is added; how many batches were safe each time that one was added."""
    add, batches = ShardWriter.add, list[int]()

    def die_later(writer: ShardWriter, *args: Any, **more: Any) -> None:
        batches.append(writer.batches_done)
        if len(batches) == 6:
            raise MemoryError
        add(writer, *args, **more)

    monkeypatch.setattr(ShardWriter, "add", die_later)
    return batches


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def alone(model: str, folder: Path, **more: Any) -> dict[str, bytes]:
    harvest_text(load_model(model), DOCUMENTS, folder, **{**ASKED, **more})
    return files(folder)


def break_off(model: str, folder: Path) -> None:
    """One process harvests, and is interrupted after two shards."""

    def stop(_phase: str, done: int, _all: int | None) -> None:
        if done > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alone(model, folder, progress=stop)


@pytest.mark.parametrize("jobs", [1, 3, 100])
@pytest.mark.parametrize(
    "more",
    [{}, {"tokens": None}, {"tokens": 7}, {"skip_first": True, "dtype": torch.bfloat16, "layers": ["1"]}],
    ids=["some", "all", "few", "others"],
)
def test_files_are_those_of_one_process_to_the_byte(
    model: str, tmp_path: Path, jobs: int, more: dict[str, Any]
) -> None:
    engine = Here()
    opened = spread(engine, model, tmp_path / "spread", jobs=jobs, **more)
    expected = alone(model, tmp_path / "alone", **more)
    assert files(tmp_path / "spread") == expected
    shards = len(expected) - 1
    assert len(engine.ran) == min(jobs, shards)
    if "tokens" not in more:
        assert (shards, {layer.tokens for layer in opened.values()}) == (7, {TOKENS})
        assert all(json.loads((tmp_path / "w" / "manifest.json").read_text())["done"].values())


def test_interrupted_work_goes_on_and_what_is_done_is_not_done_again(model: str, tmp_path: Path) -> None:
    first, second, third = Here(stop=2), Here(), Here()
    with pytest.raises(KeyboardInterrupt):
        spread(first, model, tmp_path / "s")
    assert not json.loads((tmp_path / "s" / "index.json").read_text())["complete"]
    spread(second, model, tmp_path / "s")
    assert (first.ran, second.ran) == ([0, 1], [3, 5])
    assert files(tmp_path / "s") == alone(model, tmp_path / "alone")
    spread(third, model, tmp_path / "s")
    assert third.ran == []


def test_a_job_that_dies_goes_on_after_its_last_shard(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = die_at_batch_6(monkeypatch)
    with pytest.raises(MemoryError):
        spread(Here(), model, tmp_path / "s", jobs=1)
    done = batches[-1]
    assert 0 < done < 6
    spread(Here(), model, tmp_path / "s", jobs=1)
    assert batches[6] == done
    assert files(tmp_path / "s") == alone(model, tmp_path / "alone")


def test_an_engine_goes_on_where_one_process_stopped_and_the_other_way_round(model: str, tmp_path: Path) -> None:
    expected = alone(model, tmp_path / "alone")
    break_off(model, tmp_path / "s")
    engine = Here()
    spread(engine, model, tmp_path / "s")
    assert engine.ran[0] == 2
    assert files(tmp_path / "s") == expected
    with pytest.raises(KeyboardInterrupt):
        spread(Here(stop=2), model, tmp_path / "t", work="other")
    assert alone(model, tmp_path / "t") == expected


def test_shards_that_are_lost_are_harvested_again(model: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        spread(Here(stop=3), model, tmp_path / "s")
    (tmp_path / "s" / "shard-00000.safetensors").unlink()
    (tmp_path / "s" / "shard-00003.safetensors").write_bytes(b"damaged")
    engine = Here()
    spread(engine, model, tmp_path / "s")
    assert engine.ran == [0, 3, 5]
    assert files(tmp_path / "s") == alone(model, tmp_path / "alone")


def test_a_job_that_died_goes_on_where_its_shards_are_lost_too(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = die_at_batch_6(monkeypatch)
    with pytest.raises(MemoryError):
        spread(Here(), model, tmp_path / "s", jobs=1)
    assert batches[-1] > 0
    (tmp_path / "s" / "shard-00000.safetensors").unlink()
    spread(Here(), model, tmp_path / "s", jobs=1)
    assert batches[6] == 0
    assert files(tmp_path / "s") == alone(model, tmp_path / "alone")


def test_parts_are_kept_where_one_process_added_shards_meanwhile(model: str, tmp_path: Path) -> None:
    first = Here(stop=1)
    with pytest.raises(KeyboardInterrupt):
        spread(first, model, tmp_path / "s", jobs=100)
    break_off(model, tmp_path / "s")
    second = Here()
    spread(second, model, tmp_path / "s", jobs=100)
    assert second.ran == [2, 3, 4, 5, 6]
    assert files(tmp_path / "s") == alone(model, tmp_path / "alone")


def test_a_harvest_in_parts_is_not_replaced_by_another_before_it_is_complete(model: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        spread(Here(stop=2), model, tmp_path / "s")
    before = files(tmp_path / "s")
    with pytest.raises(InputError, match="holds a harvest with another request"):
        alone(model, tmp_path / "s", context=8)
    with pytest.raises(InputError, match="holds a harvest with another request"):
        spread(Here(), model, tmp_path / "s", work="other", context=8)
    assert files(tmp_path / "s") == before


def test_parts_with_other_shards_than_planned_are_not_joined(model: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        spread(Here(stop=3), model, tmp_path / "s")
    [first, *_] = sorted((tmp_path / "w" / "parts").glob("*.json"))
    part = parts.load_part(first)
    save_object(first, format=parts._PART, content={**part, "shards": []})
    with pytest.raises(InputError, match=r"expected parts with the shards that were planned \(700 tokens\), got "):
        spread(Here(), model, tmp_path / "s")


def test_shards_of_parts_that_are_of_no_use_any_more_are_removed_at_the_end(model: str, tmp_path: Path) -> None:
    for name in ("one process", "an engine"):
        with pytest.raises(KeyboardInterrupt):
            spread(Here(stop=6), model, tmp_path / name, work=f"w-{name}", jobs=100)
        mine = tmp_path / name / "notes.txt"
        mine.write_text("mine")
        if name == "one process":
            alone(model, tmp_path / name, shard_tokens=300)
        else:
            spread(Here(), model, tmp_path / name, work="other", shard_tokens=300)
        mine.unlink()
        assert files(tmp_path / name) == alone(model, tmp_path / f"alone-{name}", shard_tokens=300), name
    for name in ("by one", "by all three"):
        break_off(model, tmp_path / name)
        if name == "by all three":
            with pytest.raises(KeyboardInterrupt):
                spread(Here(stop=4), model, tmp_path / name, work="third", jobs=100)
        alone(model, tmp_path / name, shard_tokens=300)
    assert files(tmp_path / "by all three") == files(tmp_path / "by one")


def test_a_task_that_is_given_to_a_second_process_waits_for_the_first(model: str, tmp_path: Path) -> None:
    class Twice(Here):
        def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
            state = Path(tasks[0]["result"]).with_suffix("")
            with ThreadPoolExecutor(1) as pool:
                with hold_lock(state / LOCK, what=state):
                    second = pool.submit(attempt, work, tasks[0])
                    with pytest.raises(TimeoutError):
                        second.result(timeout=1)
                    assert files(tmp_path / "s").keys() == {LOCK, "index.json"}
                assert second.result() is None
            yield from super().run(work, tasks)

    spread(Twice(), model, tmp_path / "s", jobs=1)
    assert files(tmp_path / "s") == alone(model, tmp_path / "alone")


def test_another_request_and_another_model_in_a_process_are_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        spread(Here(stop=1), model, tmp_path / "s")
    kept = files(tmp_path / "w" / "parts")
    with pytest.raises(InputError, match=r"settings that it was begun with: .*context 16, got 8"):
        spread(Here(), model, tmp_path / "u", context=8)
    with pytest.raises(InputError, match=r"settings that it was begun with: .*out"):
        spread(Here(), model, tmp_path / "t")
    assert files(tmp_path / "w" / "parts") == kept != {}
    with pytest.raises(InputError, match="work: expected another folder than that of the shards"):
        spread(Here(), model, tmp_path / "w")

    class Changed(Here):
        def run(self, work: Work, tasks: Sequence[Task]) -> Ended:
            parts._load_once.cache_clear()
            weights = tmp_path / "model" / "model.safetensors"
            save_file({name: 2 * value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
            yield from super().run(work, tasks)

    with pytest.raises(InputError, match=r"expected the weights with which the harvest began .* got others"):
        spread(Changed(), model, tmp_path / "s")
    with pytest.raises(InputError, match="jobs: expected at least one, got 0"):
        spread(Here(), model, tmp_path / "s", jobs=0)
    with pytest.raises(InputError, match="expected at least one token to keep"):
        spread(Here(), model, tmp_path / "none", work="x", tokens=0)


def test_options_of_an_engine_are_refused_without_one(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, work = str(tmp_path / "out"), str(tmp_path / "w")
    refused = {
        "--work, --jobs: expected --on with them, got none": ["--jobs", "3"],
        "--on: expected --work DIR with it": ["--on", "local:2"],
        "--on: expected local:N, slurm[:OPTIONS] or ray[:ADDRESS], got 'nowhere'": [
            "--on",
            "nowhere",
            "--work",
            work,
        ],
        "--work: expected another folder than OUT": ["--on", "local:2", "--work", out],
        "--device: expected cpu with --on ray": ["--on", "ray", "--work", work, "--device", "cuda"],
    }
    for said, words in refused.items():
        assert run(["harvest", model, out, *words]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_the_verb_writes_what_it_writes_without_an_engine(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(DOCUMENTS))
    asked = ["--text", str(text), "--tokens", "500", "--context", "16"]
    assert run(["harvest", model, str(tmp_path / "alone"), *asked]) == 0
    on = ["--on", "local:1", "--work", str(tmp_path / "w"), "--jobs", "2"]
    assert run(["harvest", model, str(tmp_path / "spread"), *asked, *on]) == 0
    assert files(tmp_path / "spread") == files(tmp_path / "alone")
    assert "layers of 500 tokens" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("on", ENGINES)
def test_replicas_that_are_killed_lose_nothing_and_count_nothing_twice(model: str, tmp_path: Path, on: str) -> None:
    mark, work = WORKER[on.partition(":")[0]], tmp_path / "w"
    engine = open_engine(on, work)  # before anything is killed: a cluster has to start first
    with killer(3, lambda command: mark in command) as killed:
        spread(engine, model, tmp_path / "s", tokens=None, batch_size=1, jobs=6)
    assert len(killed) <= 3
    index = json.loads((tmp_path / "s" / "index.json").read_text())
    assert len(index["shards"]) > 6
    assert files(tmp_path / "s") == alone(model, tmp_path / "alone", tokens=None, batch_size=1)
