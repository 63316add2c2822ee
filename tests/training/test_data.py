"""The order of the tokens: every one as often, another order each epoch, and resumable at any batch."""

import gc
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from autopsae.activations.store import Activations, open_activations
from autopsae.arrays import InputError, Mapped, Tokens, chunks, from_files
from autopsae.passes import same_passes
from autopsae.run.data import hold_out
from autopsae.training.data import Place, Shuffled
from tests.pretended_device import pretended_device

pytestmark = pytest.mark.quick


def numbered(n: int = 100) -> Tensor:
    return torch.arange(float(n))[:, None].expand(n, 2)


@pytest.mark.parametrize("buffer_tokens", [1, 70, 1000])
def test_every_token_is_drawn_about_as_often_in_another_order_each_epoch(buffer_tokens: int) -> None:
    batches = Shuffled(numbered(), 30, buffer_tokens=buffer_tokens, seed=0)
    drawn = [int(value) for _ in range(10) for value in next(batches)[:, 0]]
    counts = Counter(drawn)
    assert set(counts) == set(range(100))
    assert set(counts.values()) == {3}
    if buffer_tokens == 1000:
        assert drawn[:90] != sorted(drawn[:90])
        assert drawn[:100] != drawn[100:200]


def test_a_seed_gives_its_own_order() -> None:
    first, same, other = (next(Shuffled(numbered(), 30, buffer_tokens=100, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def taken(place: Place | None, n: int, *, batch_tokens: int, buffer_tokens: int) -> list[tuple[Tensor, Place]]:
    """n batches, and the place after each; the seed is not the first run's where there is a place to go on from."""
    batches = Shuffled(
        numbered(), batch_tokens, buffer_tokens=buffer_tokens, seed=3 if place is None else 99, place=place
    )
    return [(next(batches), batches.place) for _ in range(n)]


@pytest.mark.parametrize("batch_tokens", [20, 30, 99])
@pytest.mark.parametrize("buffer_tokens", [1, 41, 99, 100, 1000])
def test_from_any_place_in_three_epochs_the_same_batches_follow(batch_tokens: int, buffer_tokens: int) -> None:
    n = -(-3 * 100 // batch_tokens)
    whole = taken(None, n + 3, batch_tokens=batch_tokens, buffer_tokens=buffer_tokens)
    for done in range(n):
        _, place = whole[done]
        rest = taken(place, n + 2 - done, batch_tokens=batch_tokens, buffer_tokens=buffer_tokens)
        for (found, there), (expected, then) in zip(rest, whole[done + 1 :], strict=True):
            assert torch.equal(found, expected), done
            assert (there.buffers, there.batches) == (then.buffers, then.batches)
            assert torch.equal(there.held, then.held)
            assert torch.equal(there.generator, then.generator)


def test_the_place_before_the_first_batch_gives_the_first_batch() -> None:
    batches = Shuffled(numbered(), 30, buffer_tokens=50, seed=3)
    again = Shuffled(numbered(), 30, buffer_tokens=50, seed=99, place=batches.place)
    assert torch.equal(next(batches), next(again))


def test_a_source_smaller_than_a_batch_is_refused() -> None:
    message = r"expected at least batch_tokens = 1,001 tokens, the stream ended after 100; harvest more or take"
    for buffer_tokens in (7, 5000):
        with pytest.raises(InputError, match=message):
            next(Shuffled(numbered(), 1001, buffer_tokens=buffer_tokens, seed=0))


def test_no_tokens_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least one token, got none"):
        next(Shuffled(numbered(0), 4, buffer_tokens=8, seed=0))


class GivesOnce:
    """Iterable any number of times, but only the first time does anything come."""

    def __init__(self) -> None:
        self.left = [numbered()]

    def __iter__(self) -> Iterator[Tensor]:
        while self.left:
            yield self.left.pop()


@pytest.mark.parametrize("buffer_tokens", [30, 1000])
def test_a_source_that_gives_nothing_the_second_time_is_told_so(buffer_tokens: int) -> None:
    batches = Shuffled(GivesOnce(), 30, buffer_tokens=buffer_tokens, seed=0)
    for _ in range(3):
        next(batches)
    message = (
        r"the stream of tokens ended early: read a second time, it gave none \(expected at least one token, .*\); "
        "pass something that starts afresh each time it is iterated"
    )
    with pytest.raises(InputError, match=message):
        next(batches)


@pytest.mark.parametrize("buffer_tokens", [41, 100, 1000])
@pytest.mark.parametrize(
    ("other", "first"),
    [
        (numbered() + 1, 0),
        (torch.cat([numbered(30), numbered(70) + 50]), 0),
        # The end of the source is known from the second epoch on.
        (numbered(99), 5),
        (numbered(140), 5),
    ],
    ids=["other values", "other later values", "fewer", "more"],
)
def test_a_run_never_goes_on_with_other_tokens_than_it_has_read(
    other: Tensor, first: int, buffer_tokens: int
) -> None:
    """At the next batch where what was read is read again, and otherwise at the end of the epoch."""
    for done in range(first, 10):
        _, place = taken(None, done + 1, batch_tokens=20, buffer_tokens=buffer_tokens)[done]
        follows = Shuffled(other, 20, buffer_tokens=buffer_tokens, seed=99, place=place)
        with pytest.raises(InputError, match=r"expected (to resume on the activations that|a source that yields)"):
            [next(follows) for _ in range(12)]


def test_tokens_that_were_read_before_are_checked_at_the_next_batch() -> None:
    _, place = taken(None, 2, batch_tokens=20, buffer_tokens=1000)[1]
    message = (
        "expected to resume on the activations that the run began with, got other values in 100 tokens; pass "
        "those, or begin another run in a new folder"
    )
    with pytest.raises(InputError, match=message):
        next(Shuffled(numbered() + 1, 20, buffer_tokens=1000, seed=3, place=place))


# Beside a GPU, another thread reads.


def on_disk(folder: Path) -> Activations:
    np.save(folder / "layer.npy", numbered(300).numpy())
    return open_activations(folder / "layer.npy")


def beside_a_gpu(tokens: Tokens, place: Place | None = None, *, buffer_tokens: int = 70) -> Shuffled:
    return Shuffled(tokens, 30, buffer_tokens=buffer_tokens, seed=0, device="cuda", place=place)


@pytest.mark.parametrize("buffer_tokens", [1, 70, 1000])
@pytest.mark.parametrize("source", ["files", "matrix", "batches"])
def test_beside_a_gpu_the_batches_and_the_places_are_the_same(
    tmp_path: Path, source: str, buffer_tokens: int
) -> None:
    sources: dict[str, Tokens] = {"files": on_disk(tmp_path), "matrix": numbered(300), "batches": [numbered(300)]}
    tokens = sources[source]
    alone = Shuffled(tokens, 30, buffer_tokens=buffer_tokens, seed=0)
    with pretended_device() as there:
        beside = beside_a_gpu(tokens, buffer_tokens=buffer_tokens)
        for _ in range(25):
            batch, expected = next(beside), next(alone)
            assert batch.device.type == "cuda"
            assert torch.equal(batch.cpu(), expected)
            ours, theirs = vars(beside.place), vars(alone.place)
            assert {name: str(value) for name, value in ours.items()} == {n: str(v) for n, v in theirs.items()}
        assert not [place for place in there.waits if place.startswith("training/data")]
        # A place goes on on either device.
        resumed = beside_a_gpu(tokens, alone.place, buffer_tokens=buffer_tokens)
        assert torch.equal(next(resumed).cpu(), next(alone))


def test_beside_a_gpu_a_thread_reads_files_and_matrices_and_no_source_of_the_users(tmp_path: Path) -> None:
    before = {*threading.enumerate()}
    with pretended_device():
        sources: list[tuple[Tokens, int]] = [(on_disk(tmp_path), 2), (numbered(300), 2), ([numbered(300)], 0)]
        for tokens, threads in sources:
            batches = beside_a_gpu(tokens)
            next(batches)
            assert len({*threading.enumerate()} - before) == threads
            del batches
            gc.collect()
            assert not {*threading.enumerate()} - before
    next(Shuffled(on_disk(tmp_path), 30, buffer_tokens=70, seed=0))
    assert not {*threading.enumerate()} - before


def test_an_error_of_the_reader_comes_once_in_its_place_and_leaves_no_thread(tmp_path: Path) -> None:
    tokens, before = on_disk(tmp_path), {*threading.enumerate()}
    with pretended_device():
        batches = beside_a_gpu(tokens)
        for _ in range(4):  # two buffers, of which the second is read
            next(batches)
        damaged = numbered(300).numpy().copy()
        damaged[150:] = np.nan
        np.save(tmp_path / "layer.npy", damaged)
        with pytest.raises(InputError, match="expected finite activations, got NaN or infinite values"):
            [next(batches) for _ in range(20)]
        with pytest.raises(StopIteration):
            next(batches)
        assert not {*threading.enumerate()} - before


def test_chunks_for_a_gpu_are_the_same_and_leave_no_thread(tmp_path: Path) -> None:
    tokens, before = on_disk(tmp_path), {*threading.enumerate()}
    with pretended_device():
        read = [x.cpu() for x in chunks(tokens, 70, device="cuda", dtype=torch.float64)]
        assert all(map(torch.equal, read, chunks(tokens, 70, dtype=torch.float64)))
        for _ in chunks(tokens, 70, device="cuda"):
            break
        assert not {*threading.enumerate()} - before


def test_what_is_made_of_files_is_from_files(tmp_path: Path) -> None:
    tokens = on_disk(tmp_path)
    assert all(map(from_files, (tokens, *hold_out(tokens, 30), same_passes(tokens), Mapped(tokens, lambda x: x))))
    assert all(map(from_files, hold_out(Mapped(tokens, lambda x: x), 30)))
    assert not any(map(from_files, (numbered(), [numbered()], same_passes([numbered()]), *hold_out(numbered(), 3))))
