"""One SAE whose latents are spread over ranks ends as on one process."""

from dataclasses import fields, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.kernels.ranks import ALONE
from autopsae.remedies import untouched
from autopsae.sae.sparsity import GroupMax, JumpReLU, TopK
from autopsae.training.config import Record
from autopsae.training.rank_traffic import bytes_of_step
from autopsae.training.revival import GhostGradients, Resampling
from tests.training.members import D_IN
from tests.training.on_ranks import (
    CASES,
    Outcome,
    begin,
    begin_sweep,
    begin_with_others,
    call_each,
    choose_per_token,
    choose_together,
    drift,
    in_groups,
    on_ranks,
    parts_both_ways,
    see_other_tokens,
    steps_of_case,
    timeouts_of_groups,
    train_case,
    train_cases,
    train_from,
    train_in_groups,
    train_until,
    train_wide,
    train_with_other_rounding,
    whitened,
)

EXACT = 1e-9
OF_ISSUE = ("topk", "batch_topk", "jumprelu")


@cache
def alone(name: str) -> Any:
    """A case on one process."""
    [outcome] = on_ranks(1, train_case, CASES[name])
    return outcome


def check_same_outcome(every: list[Outcome], expected: Outcome) -> None:
    first = every[0]
    for name, value in expected.weights.items():
        torch.testing.assert_close(first.weights[name], value, rtol=EXACT, atol=EXACT, msg=name)
    for name, value in expected.counters.items():
        assert torch.equal(torch.cat([one.counters[name] for one in every]), value), name
    for mine, other in zip(first.records, expected.records, strict=True):
        for part in fields(Record):
            one, wanted = getattr(mine, part.name), getattr(other, part.name)
            assert one == (wanted if wanted is None else pytest.approx(wanted, rel=EXACT, abs=EXACT)), part.name
    assert all(one.records == first.records for one in every)


def check_same_parts(parts: list[dict[str, Tensor]], of_group: int) -> None:
    """Peers, which have the same latents in different groups, end with the same tensors, to the bit."""
    for rank, part in enumerate(parts):
        first = parts[rank % of_group]
        assert {"W_enc", "W_dec", "moments.W_dec"} <= part.keys() == first.keys()
        for name, tensor in part.items():
            assert torch.equal(tensor, first[name]), f"{name} of rank {rank}"


@pytest.mark.parametrize(
    ("size", "names"),
    [
        (2, OF_ISSUE),
        (3, ["few steps"]),
        *(pytest.param(4, [name], marks=pytest.mark.long) for name in CASES),
        *(pytest.param(5, [name], marks=pytest.mark.long) for name in OF_ISSUE),
    ],
)
def test_ranks_end_with_the_weights_and_the_counters_of_one_process(
    size: int, names: list[str], tmp_path: Path
) -> None:
    every = on_ranks(size, train_cases, names)
    for name in names:
        # Otherwise no death and no revival would have been compared.
        assert alone(name).records[-1].dead
        assert sum(record.died for record in alone(name).records) > 5
        check_same_outcome([one[name] for one in every], alone(name))


@pytest.mark.parametrize(
    ("size", "groups", "names"),
    [
        (4, 2, ["few steps"]),
        (2, 2, ["few steps"]),
        *(pytest.param(4, 2, [name], marks=pytest.mark.long) for name in CASES),
        *(pytest.param(4, 4, [name], marks=pytest.mark.long) for name in OF_ISSUE),
        pytest.param(6, 2, ["batch_topk"], marks=pytest.mark.long),
    ],
)
def test_groups_that_share_each_batch_end_with_the_weights_and_the_counters_of_one_process(
    size: int, groups: int, names: list[str], tmp_path: Path
) -> None:
    every = on_ranks(size, train_in_groups, names, groups)
    of_group = size // groups
    for name in names:
        assert sum(record.died for record in alone(name).records) > 5
        for first in range(0, size, of_group):
            mine = [one[name] for one in every[first : first + of_group]]
            mine[0] = replace(mine[0], weights=every[0][name].weights)  # which the first rank of all has alone
            check_same_outcome(mine, alone(name))
        check_same_parts([one[name].part for one in every], of_group)


def test_groups_whose_sums_round_otherwise_keep_the_same_weights(tmp_path: Path) -> None:
    check_same_parts(on_ranks(4, in_groups, 2, train_with_other_rounding), 2)


def test_a_peer_with_one_other_bit_is_told_on_all_ranks(tmp_path: Path) -> None:
    told = on_ranks(4, call_each, [(in_groups, (2, drift))])
    assert [words for [words] in told] == 4 * [
        "ranks: expected the same W_dec in all groups, got another one in group 1 than in group 0; go on from the "
        "last checkpoint, on devices of one kind"
    ]


def test_groups_wait_as_long_as_they_are_told(tmp_path: Path) -> None:
    day = timedelta(days=1)
    assert on_ranks(4, timeouts_of_groups, day) == [[day] * 4] * 4


@pytest.mark.parametrize(("before", "after"), [((4, 2), (2, 1)), ((2, 1), (4, 2)), ((4, 2), (1, 1))])
def test_a_training_goes_on_with_another_arrangement_of_ranks(
    before: tuple[int, int], after: tuple[int, int], tmp_path: Path
) -> None:
    name, path = "few steps", tmp_path / "checkpoint.json"
    expected = alone(name)
    on_ranks(before[0], in_groups, before[1], train_until, name, path, 20)
    assert len([*tmp_path.glob("*.safetensors")]) == before[0] // before[1]
    if after[0] == 1:
        every = [train_from(ALONE, name, path)]
    else:
        every = on_ranks(after[0], in_groups, after[1], train_from, name, path)[: after[0] // after[1]]
    check_same_outcome(every, replace(expected, records=[r for r in expected.records if r.step >= 20]))


@pytest.mark.parametrize(
    ("name", "size", "groups"),
    [("few steps", 4, 2), *(pytest.param(name, 4, 2, marks=pytest.mark.long) for name in ("topk", "jumprelu"))],
)
def test_a_step_of_groups_sends_the_bytes_that_were_predicted(
    name: str, size: int, groups: int, tmp_path: Path
) -> None:
    case = CASES[name]
    member = case.member(ALONE)
    every = on_ranks(size, in_groups, groups, steps_of_case, name)
    assert all(steps == every[0] for steps in every)
    for step in every[0]:
        assert step.sent == bytes_of_step(
            member.config,
            case.sparsity,
            D_IN,
            ranks=size,
            groups=groups,
            latents=member.sae.d_sae * groups // size,
            dtype=torch.float64,
            silent=step.silent,
            is_recorded=step.is_recorded,
        )


def test_groups_that_divide_neither_the_ranks_nor_the_batch_are_refused(tmp_path: Path) -> None:
    calls: list[Any] = [
        (in_groups, (3, begin, {}, TopK(k=3))),
        (in_groups, (0, begin, {}, TopK(k=3))),
        (in_groups, (4, begin, {"batch_tokens": 66}, TopK(k=3))),
    ]
    told = on_ranks(4, call_each, calls)
    assert all(one == told[0] for one in told)
    assert told[0][0] == (
        "ranks: expected a number of groups that divides 4 ranks, got 3; start another number of processes, or "
        "take another number of groups"
    )
    assert told[0][1].startswith("ranks: expected a number of groups that divides 4 ranks, got 0")
    assert told[0][2] == (
        "ranks: expected a batch that 4 groups share evenly, got batch_tokens = 66; take a multiple of 4"
    )


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("few steps", 4, 2),
        *(pytest.param(name, 4, 2, marks=pytest.mark.long) for name in (*OF_ISSUE, "clipped")),
        pytest.param("topk", 2, 3, marks=pytest.mark.long),
        pytest.param("jumprelu", 3, 1, marks=pytest.mark.long),
    ],
)
def test_a_training_goes_on_with_another_number_of_ranks(
    name: str, before: int, after: int, tmp_path: Path
) -> None:
    path, expected = tmp_path / "checkpoint.json", alone(name)
    done = 120 if len(expected.records) > 30 else 20
    on_ranks(before, train_until, name, path, done)
    assert len([*tmp_path.glob("*.safetensors")]) == before  # those of older steps are gone
    many = after > 1
    every = on_ranks(after, train_from, name, path) if many else [train_from(ALONE, name, path)]
    check_same_outcome(every, replace(expected, records=[r for r in expected.records if r.step >= done]))


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 4])
def test_in_float32_ranks_end_with_the_error_and_the_dead_of_one_process(size: int, tmp_path: Path) -> None:
    expected = train_wide(ALONE, OF_ISSUE)
    measured = on_ranks(size, train_wide, OF_ISSUE)[0]
    for name in OF_ISSUE:
        (fvu, dead), (one_fvu, one_dead) = measured[name], expected[name]
        print(f"{name}, {size} ranks: FVU {fvu:.7f}, on one {one_fvu:.7f}; dead {dead:.5f}, on one {one_dead:.5f}")
        assert abs(fvu - one_fvu) < 1e-4
        assert abs(dead - one_dead) <= 1e-3


@pytest.mark.parametrize("name", ["few steps", pytest.param("jumprelu", marks=pytest.mark.long)])
def test_a_step_sends_the_bytes_that_were_predicted(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    config = case.member(ALONE).config
    [steps, other, _] = on_ranks(3, steps_of_case, name)
    assert steps == other
    assert {step.silent > 0 for step in steps} == {True, False}
    for step in steps:
        assert step.sent == bytes_of_step(
            config,
            case.sparsity,
            D_IN,
            ranks=3,
            dtype=torch.float64,
            silent=step.silent,
            is_recorded=step.is_recorded,
        )


def test_the_largest_of_all_ranks_are_those_of_one_sort(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    asked: list[tuple[list[Tensor], int]] = []
    for dtype in (torch.float32, torch.float64):
        for scale, wanted in ((1.0, 40), (1e-30, 1), (1e20, 99), (1.0, 500), (1.0, 600)):
            shares = [torch.rand(n, generator=generator, dtype=dtype) * scale for n in (150, 0, 350)]
            asked.append((shares, wanted))
    asked.append(([torch.rand(n, generator=generator).mul(4).round() for n in (100, 60, 140)], 117))  # many ties
    per_token = [torch.randn(7, n, generator=generator) for n in (5, 3, 0)]
    calls = [*((choose_together, one) for one in asked), (choose_per_token, (per_token, 5))]
    results = on_ranks(3, call_each, calls)
    for number, (shares, wanted) in enumerate(asked):
        masks = [result[number] for result in results]
        values = torch.cat([share[mask] for share, mask in zip(shares, masks, strict=True)])
        largest = torch.cat(shares).sort(descending=True).values[:wanted]
        assert torch.equal(values.sort(descending=True).values, largest)
    whole = torch.cat(per_token, dim=1)
    fifth = whole.sort(dim=1, descending=True).values[:, 4:5]
    assert torch.equal(torch.cat([result[-1] for result in results], dim=1), whole >= fifth)


@pytest.mark.parametrize(("size", "groups"), [(3, 1), (4, 2)])
def test_a_rank_may_be_born_with_its_own_latents_alone(size: int, groups: int, tmp_path: Path) -> None:
    cases = [(remedy, sparsity) for remedy in (untouched(D_IN), whitened()) for sparsity in (TopK(k=3), JumpReLU())]
    calls = [(in_groups, (groups, parts_both_ways, *case)) for case in cases]
    every = on_ranks(size, call_each, calls)
    for number in range(len(cases)):
        parts = [results[number] for results in every]
        assert sum(len(of_whole["W_enc"]) for of_whole, _ in parts) == 34 * groups
        for of_whole, of_own in parts:
            assert torch.equal(of_own.pop("W_enc"), of_whole.pop("W_enc"))
            # Thresholds are set by products, which may round otherwise where other latents lie beside them.
            torch.testing.assert_close(of_own, of_whole, rtol=1e-12, atol=1e-12)


def test_what_several_ranks_cannot_do_is_refused_on_all_of_them(tmp_path: Path) -> None:
    top = TopK(k=3)
    calls: list[Any] = [
        (begin, ({"nested": (4,)}, top)),
        (begin, ({"revival": GhostGradients()}, top)),
        (begin, ({"resampling": Resampling(every_steps=10)}, top)),
        (begin, ({}, GroupMax(k=4))),
        (begin, ({}, TopK(k=17))),
        (begin, ({"k_start": 17, "k_steps": 3}, top)),
        (begin_sweep, ()),
        (begin_with_others, ()),
        (begin, ({"lr_of_rank": True}, top)),
        (see_other_tokens, ()),
    ]
    told = on_ranks(2, call_each, calls)
    on_several = "ranks: on several ranks, expected {}; leave it out, or train on one"
    assert told[0] == [
        on_several.format("no nested prefixes, got (4,)"),
        on_several.format("AuxK or no revival, got GhostGradients"),
        on_several.format("no resampling, got some"),
        on_several.format("a sparsity that can be spread, got groupmax"),
        "ranks: expected a k of at most 16, the latents of a rank, got TopK(k=17) of 32 latents on 2 ranks; use "
        "fewer ranks",
        on_several.format("a k of at most the 16 latents of a rank, got 17"),
        "ranks: expected one SAE on several ranks, got 2; train each for itself",
        "ranks: expected an SAE of all 32 latents or of its own 16 on rank 1, got one of 5; give all ranks the "
        "same SAE",
        "ranks: expected the same settings on all ranks, but rank 1 differs from rank 0: lr 0.001, got 0.002; "
        "start all with the same command",
        told[0][-1],
    ]
    assert told[0][-1].startswith("ranks: expected the same loss on all ranks, got ")
    same = [number for number in range(len(calls)) if number != 8]  # which names the two ranks
    assert [told[1][number] for number in same] == [told[0][number] for number in same]
