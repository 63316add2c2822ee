"""Trainings on several ranks: processes of this machine that exchange through gloo, each with one thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.evaluation.reconstruction import evaluate
from autopsae.kernels.ranks import ALONE, Ranks, Traffic, largest_of_each, largest_on_ranks
from autopsae.remedies.remedy import Remedy, untouched, whiten
from autopsae.sae.init import born
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum
from autopsae.training import rank_files
from autopsae.training.bias import Bias
from autopsae.training.config import Record, TrainConfig
from autopsae.training.loop import Training
from autopsae.training.objective import L1, L0Target
from autopsae.training.ranks import part_of, share_of, unite
from autopsae.training.revival import AuxK
from autopsae.training.sources import Member
from tests.processes import CONTEXT, SECONDS
from tests.training.members import new_sae, settings, tokens

Work = Callable[..., Any]


def on_ranks(size: int, work: Work, *arguments: Any, once: bool = False) -> list[Any]:
    """What `work(ranks, *arguments)` returns on each of `size` ranks; an exception is returned too.

    The processes stay for the next call, as to start them takes longer than most works. once: processes of its own,
    each of which ends with its work, so that the others find it gone.
    """
    group = _start(size, once=True) if once else _group(size)
    for _, pipe in group:
        pipe.send((work, arguments))
    results = [pipe.recv() if pipe.poll(SECONDS) else TimeoutError() for _, pipe in group]
    if once or any(isinstance(result, Exception) for result in results):
        _group.cache_clear()
        for process, _ in group:
            process.kill()
            process.join()
    return results


def _start(size: int, *, once: bool = False) -> list[tuple[Any, Connection]]:
    folder, group = mkdtemp(prefix="ranks-"), []
    for rank in range(size):
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_one_rank, args=(rank, size, folder, theirs, once), daemon=True)
        process.start()
        theirs.close()
        group.append((process, ours))
    return group


_group = cache(_start)


def _one_rank(rank: int, size: int, folder: str, pipe: Connection, once: bool) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            return
        try:
            result = work(Ranks.of_group(), *arguments)
        except Exception as error:
            result = error
        pipe.send(result)
        if once:
            return


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training that one process and several ranks can do."""

    sparsity: Sparsity = field(default_factory=lambda: TopK(k=3))
    config: dict[str, Any] = field(default_factory=dict)
    sae: dict[str, Any] = field(default_factory=dict)
    tokens: int = 1500

    def member(self, ranks: Ranks) -> Member:
        """The SAE, or the part of it that a rank has, and how it is trained."""
        whole = new_sae(0, self.sparsity, **self.sae)
        config = {"steps": 200, "record_every": 5, "revival": AuxK(dead_after_tokens=640, k_aux=5), **self.config}
        return Member(sae=whole if ranks.everyone.is_alone else part_of(whole, ranks), config=settings(**config))


def whitened() -> Remedy:
    """A remedy with a linear map, for the tokens that all cases see."""
    raw = collect(tokens()).raw
    return whiten(Spectrum.of(raw.covariance), raw.mean, alpha=0.3)


CASES = {
    "topk": Case(),
    "batch_topk": Case(sparsity=BatchTopK(k=3)),
    "jumprelu": Case(sparsity=JumpReLU(), config={"penalty": L0Target(l0=3.0)}),
    "relu": Case(sparsity=ReLU(), config={"penalty": L1(coefficient=0.1)}),
    "clipped": Case(config={"clip_norm": 1.0, "relative_encoder_lr": True, "optimizer": "sparse_adam"}),
    "few steps": Case(sparsity=BatchTopK(k=3), config={"steps": 40, "clip_norm": 1.0, "record_every": 3}),
    "falling k": Case(sparsity=BatchTopK(k=2), config={"k_start": 5, "k_steps": 80}),
    "a bias of the decoder": Case(
        config={"bias": Bias(decoder_only=True, lr_fraction=0.5), "frozen": ("b_enc",)}, sae={"remedy": whitened()}
    ),
    "a frozen b_dec": Case(sparsity=JumpReLU(), config={"frozen": ("b_dec",), "penalty": L0Target(l0=3.0)}),
    "without an encoder bias": Case(sae={"encoder_bias": False}, config={"unit_decoder": False}),
}


@dataclass(frozen=True)
class Outcome:
    """What came of a training: its records, its weights on the first rank, and the counters of all latents. part:
    the weights and the moments of the rank's own latents.
    """

    records: list[Record]
    weights: dict[str, Tensor]
    counters: dict[str, Tensor]
    traffic: dict[str, Traffic]
    part: dict[str, Tensor]


def train_case(ranks: Ranks, case: Case) -> Outcome:
    """Train a case to its end."""
    member = case.member(ranks)
    training = Training([member], tokens(case.tokens).to(member.sae.W_enc), ranks=ranks)
    records = [step[0] for step in training]
    return outcome_of(training, records, ranks)


def outcome_of(training: Training, records: list[Record], ranks: Ranks) -> Outcome:
    """The outcome of a training that has ended."""
    watch = training._account.watch
    counters = {name: getattr(watch, name)[0] for name in ("since_fired", "since_positive", "ever_fired")}
    sae, traffic = training.members[0].sae, dict(ranks.traffic)
    part = {**sae.state_dict(), **training._optimizer.tensors()}
    if ranks.everyone.is_alone:
        return Outcome(records, sae.state_dict(), counters, traffic, part)
    whole = unite(sae, ranks)
    return Outcome(records, {} if whole is None else whole.state_dict(), counters, traffic, part)


def train_cases(ranks: Ranks, names: Sequence[str]) -> dict[str, Outcome]:
    """Several of `CASES`, one after the other."""
    return {name: train_case(Ranks.of_group() if not ranks.is_alone else ALONE, CASES[name]) for name in names}


def train_in_groups(_: Ranks, names: Sequence[str], groups: int) -> dict[str, Outcome]:
    """Several of `CASES` with data parallelism, one after the other."""
    return {name: train_case(Ranks.of_group(groups=groups), CASES[name]) for name in names}


def in_groups(_: Ranks, groups: int, work: Work, *arguments: Any) -> Any:
    """What a work gives on ranks of which so many groups share each batch."""
    return work(Ranks.of_group(groups=groups), *arguments)


def train_until(ranks: Ranks, name: str, path: Path, steps: int) -> None:
    """Train a case for some steps, and save a checkpoint after each tenth one."""
    training = Training([CASES[name].member(ranks)], tokens(), ranks=ranks)
    for _ in training.each_step():
        if training.step % 10 == 0:
            training.save(path)
        if training.step == steps:
            break
    training.close()


def train_from(ranks: Ranks, name: str, path: Path) -> Outcome:
    """Go on from a checkpoint to the end of a case."""
    training = Training([CASES[name].member(ranks)], tokens(), ranks=ranks)
    training.load(path)
    assert 0 < training.step < training.config.steps
    return outcome_of(training, [step[0] for step in training], ranks)


@dataclass(frozen=True)
class Step:
    """What a step exchanged, and how many latents AuxK could revive in it."""

    sent: dict[str, int]
    silent: int
    is_recorded: bool


def steps_of_case(ranks: Ranks, name: str) -> list[Step]:
    """What each step of a case sent."""
    member = CASES[name].member(ranks)
    training, steps = Training([member], tokens(), ranks=ranks), []
    revival = member.config.revival
    assert isinstance(revival, AuxK)
    for _ in range(member.config.steps):
        watch = training._account.watch
        silent = int(ranks.sum(watch.silent(torch.tensor([revival.dead_after_tokens])).sum(), "test"))
        ranks.traffic.clear()
        records = training.advance()
        sent = {purpose: traffic.sent for purpose, traffic in ranks.traffic.items()}
        steps.append(Step(sent, silent, records is not None))
    return steps


def choose_together(ranks: Ranks, shares: Sequence[Tensor], wanted: int) -> Tensor:
    """Which of the values of this rank are among the `wanted` largest of all."""
    return largest_on_ranks(shares[ranks.rank], wanted, ranks)


def choose_per_token(ranks: Ranks, shares: Sequence[Tensor], k: int) -> Tensor:
    """Which of the values of this rank are among the k largest of their token."""
    return largest_of_each(shares[ranks.rank], k, ranks)


def call_each(ranks: Ranks, calls: Sequence[tuple[Work, tuple[Any, ...]]]) -> list[Any]:
    """What each of several works returns, or the message of its error."""
    results: list[Any] = []
    for work, arguments in calls:
        try:
            results.append(work(ranks, *arguments))
        except InputError as error:
            results.append(str(error))
    return results


def begin(ranks: Ranks, config: dict[str, Any], sparsity: Sparsity) -> None:
    """Begin a training with settings that may not go on several ranks."""
    sae = part_of(new_sae(0, sparsity), ranks)
    if config.get("lr_of_rank"):
        config = {"lr": 1e-3 * (1 + ranks.rank)}
    Training([Member(sae=sae, config=settings(**config))], tokens(), ranks=ranks)


def parts_both_ways(ranks: Ranks, remedy: Remedy, sparsity: Sparsity) -> list[dict[str, Tensor]]:
    """The part of a rank, of the whole SAE and of one that has its own latents alone, except on the first rank."""
    x, rate = tokens().double(), sparsity.firing_rate_at_birth(34, 3.0)
    shared: dict[str, Any] = {
        "d_sae": 34,
        "sparsity": sparsity,
        "sample": x,
        "firing_rate": rate,
        "dtype": torch.float64,
    }
    own = None if ranks.everyone.is_first else ranks.range_of(34)
    births = [born(remedy, latents=latents, **shared) for latents in (None, own)]
    assert ranks.everyone.is_first or births[1].d_sae < 34
    return [part_of(sae, ranks).state_dict() for sae in births]


def begin_with_others(ranks: Ranks) -> None:
    """The second rank gives other latents than its own."""
    part_of(new_sae(0) if ranks.everyone.is_first else share_of(new_sae(0), range(5)), ranks)


def begin_sweep(ranks: Ranks) -> None:
    """Two SAEs on several ranks."""
    members = [Member(sae=part_of(new_sae(seed), ranks), config=settings()) for seed in range(2)]
    Training(members, tokens(), ranks=ranks)


def see_other_tokens(ranks: Ranks) -> None:
    """Each rank trains on tokens of its own."""
    sae = part_of(new_sae(0), ranks)
    Training([Member(sae=sae, config=settings())], tokens(seed=5 + ranks.rank), ranks=ranks).advance()


def drift(ranks: Ranks) -> None:
    """Train until a record, after the last bit of one weight of the last rank has changed."""
    training = Training([CASES["few steps"].member(ranks)], tokens(), ranks=ranks)
    training.advance()
    if ranks.everyone.rank == ranks.everyone.size - 1:
        one = training._weights.W_dec.detach()[0, 0]
        one.copy_(one.nextafter(one + 1))
    for _ in range(5):
        training.advance()


def train_with_other_rounding(ranks: Ranks) -> dict[str, Tensor]:
    """The part of a rank after a training where the sums of the second group are a bit larger than those of the
    first, and so is the loss in the second place of each group.
    """
    in_group, of_peers = ranks.sum, ranks.peers.sum

    def sum_in_group(tensor: Tensor, purpose: str) -> Tensor:
        summed = in_group(tensor, purpose)
        rounds = purpose in ("birth", "gradient norm") and not ranks.peers.is_first
        return summed.copy_(summed.nextafter(summed + 1)) if rounds else summed

    def sum_of_peers(tensor: Tensor, purpose: str) -> Tensor:
        summed = of_peers(tensor, purpose)
        rounds = purpose == "loss" and not ranks.is_first
        return summed.copy_(summed.nextafter(summed + 1)) if rounds else summed

    vars(ranks)["sum"], vars(ranks.peers)["sum"] = sum_in_group, sum_of_peers
    case = CASES["clipped"]
    return train_case(ranks, replace(case, config={**case.config, "steps": 20, "clip_norm": 0.01})).part


def timeouts_of_groups(_: Ranks, timeout: timedelta) -> list[timedelta | None]:
    """How long the groups wait that are made for data parallelism."""
    make, seen = torch.distributed.new_group, list[timedelta | None]()

    def new_group(members: list[int], timeout: timedelta | None = None) -> Any:
        seen.append(timeout)
        return make(members, timeout)

    vars(torch.distributed)["new_group"] = new_group
    try:
        Ranks.of_group(groups=2, timeout=timeout)
    finally:
        vars(torch.distributed)["new_group"] = make
    return seen


def fail_to_save(ranks: Ranks, name: str, path: Path) -> str:
    """Go on from a checkpoint for a step, and save on a disk that is full for the last rank."""
    training = Training([CASES[name].member(ranks)], tokens(), ranks=ranks)
    training.load(path)
    training.advance()
    write = rank_files.write_tensors  # type: ignore[attr-defined]
    if ranks.rank == ranks.size - 1:
        vars(rank_files)["write_tensors"] = _full
    try:
        training.save(path)
    except (InputError, OSError) as error:
        return str(error)
    finally:
        vars(rank_files)["write_tensors"] = write
    return ""


def _full(path: Path, *_: Any) -> str:
    raise OSError(f"{path}: no space left")


WIDE: dict[str, tuple[Sparsity, dict[str, Any]]] = {
    "topk": (TopK(k=16), {}),
    "batch_topk": (BatchTopK(k=16), {}),
    "jumprelu": (JumpReLU(), {"penalty": L0Target(l0=16.0)}),
}
"""Sparsities of a wider SAE in float32, which one process chooses behind a screen."""


def wide_tokens(n: int, seed: int) -> Tensor:
    """Sparse sums of 512 directions in 128 dimensions, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(512, 128, generator=torch.Generator().manual_seed(9))
    codes = torch.rand(n, 512, generator=generator) * (torch.rand(n, 512, generator=generator) < 0.02)
    return codes @ directions + 0.5 + 0.1 * torch.randn(n, 128, generator=generator)


def train_wide(ranks: Ranks, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """(FVU, dead fraction) on 4,096 held-out tokens of 2,048 latents after 200 steps in float32, on rank 0."""
    measured: dict[str, tuple[float, float]] = {}
    x = wide_tokens(16384, 0)
    for name in names:
        sparsity, more = WIDE[name]
        rate = 16 / 2048 if name == "jumprelu" else None
        sae = born(untouched(128), d_sae=2048, sparsity=sparsity, sample=x[:2048], firing_rate=rate)
        config = TrainConfig(
            steps=200,
            lr=1e-3,
            batch_tokens=256,
            record_every=50,
            dead_after_tokens=8192,
            revival=AuxK(dead_after_tokens=8192, k_aux=64),
            **more,
        )
        part = sae if ranks.is_alone else part_of(sae, ranks)
        assert all(Training([Member(sae=part, config=config)], x, ranks=ranks))
        whole = part if ranks.is_alone else unite(part, ranks)
        if whole is not None:
            evaluation = evaluate(whole.eval(), wide_tokens(4096, 1))
            assert evaluation.fvu_raw is not None
            measured[name] = evaluation.fvu_raw, evaluation.fates.dead
    return measured
