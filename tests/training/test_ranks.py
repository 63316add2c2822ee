"""One SAE whose latents are spread over ranks ends as on one process."""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
import torch

from autopsae.kernels.ranks import ALONE
from autopsae.training.config import Record
from autopsae.training.rank_traffic import bytes_of_step
from tests.training.members import D_IN
from tests.training.on_ranks import (
    CASES,
    Outcome,
    on_ranks,
    steps_of_case,
    train_case,
    train_cases,
    train_from,
    train_until,
)

EXACT = 1e-9
OF_ISSUE = ("topk", "batch_topk", "jumprelu")


@cache
def alone(name: str) -> Outcome:
    """A case on one process."""
    return train_case(ALONE, CASES[name])


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


@pytest.mark.parametrize(
    ("size", "names"),
    [
        (2, OF_ISSUE),
        (3, ["few steps"]),
        pytest.param(4, [*CASES], marks=pytest.mark.long),
        pytest.param(5, [*CASES], marks=pytest.mark.long),
    ],
)
def test_ranks_end_with_the_weights_and_the_counters_of_one_process(
    size: int, names: list[str], tmp_path: Path
) -> None:
    every = on_ranks(size, tmp_path, train_cases, names)
    for name in names:
        # Otherwise no death and no revival would have been compared.
        assert alone(name).records[-1].dead
        assert sum(record.died for record in alone(name).records) > 5
        check_same_outcome([one[name] for one in every], alone(name))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("topk", 4, 2),
        *(pytest.param(name, 4, 2, marks=pytest.mark.long) for name in ("batch_topk", "jumprelu", "clipped")),
        pytest.param("topk", 2, 3, marks=pytest.mark.long),
        pytest.param("jumprelu", 3, 1, marks=pytest.mark.long),
    ],
)
def test_a_training_goes_on_with_another_number_of_ranks(
    name: str, before: int, after: int, tmp_path: Path
) -> None:
    path, expected = tmp_path / "checkpoint.json", alone(name)
    on_ranks(before, tmp_path / "before", train_until, name, path, 120)
    assert len([*tmp_path.glob("*.safetensors")]) == before  # those of older steps are gone
    many = after > 1
    every = on_ranks(after, tmp_path / "after", train_from, name, path) if many else [train_from(ALONE, name, path)]
    check_same_outcome(every, replace(expected, records=expected.records[120:]))


@pytest.mark.parametrize("name", ["few steps", pytest.param("jumprelu", marks=pytest.mark.long)])
def test_a_step_sends_the_bytes_that_were_predicted(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    config = case.member(ALONE).config
    [steps, other, _] = on_ranks(3, tmp_path, steps_of_case, name)
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
