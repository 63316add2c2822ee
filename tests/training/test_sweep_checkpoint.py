"""A sweep that is broken off goes on bit by bit, whoever has diverged, and refuses what others have saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import untouched
from autopsae.sae.sparsity import BatchTopK, TopK
from autopsae.training.bias import BIASES, Bias
from autopsae.training.config import Record
from autopsae.training.loop import Training
from autopsae.training.revival import AuxK, GhostGradients, Resampling
from autopsae.training.sources import Member
from tests.training.members import D_IN, new_sae, settings, tokens

STEPS = 40
RESAMPLING = Resampling(every_steps=13, dead_after_tokens=320)
BASE: dict[str, Any] = {"steps": STEPS, "record_every": 7}
OWN = tokens(900, seed=9)

WAYS: dict[str, list[dict[str, Any]]] = {
    "seeds and buffers": [{"seed": 0}, {"seed": 1}, {"seed": 0, "buffer_tokens": 300}],
    "revival": [{"revival": AuxK(dead_after_tokens=320)}, {"revival": GhostGradients(dead_after_tokens=320)}, {}],
    "resampling": [{"resampling": RESAMPLING}, {"resampling": replace(RESAMPLING, every_steps=14), "seed": 2}, {}],
    "sparse adam": [{"optimizer": "sparse_adam", "lr": lr, "clip_norm": 1.0} for lr in (1e-3, 1e-2)],
    "sign": [{"optimizer": "sign_sgd", "lr": lr} for lr in (1e-4, 1e-3)],
    "nested": [
        {"nested": (4, 20), **more}
        for more in ({"revival": AuxK(dead_after_tokens=320)}, {"lr": 1e-2}, {"resampling": RESAMPLING})
    ],
    "frozen and rates": [{"frozen": ("b_dec",)}, {"warmup_steps": 5, "decay_steps": 20}, {"bias": BIASES["slow"]}],
    "relative": [{"relative_encoder_lr": True}, {}, {"relative_encoder_lr": True, "resampling": RESAMPLING}],
    "biases": [{"bias": bias} for bias in (BIASES["decoder"], Bias(from_step=9), Bias(until_step=5))],
}


def members_of(changes: list[dict[str, Any]], **more: Any) -> list[Member]:
    """The last has its own tokens, the second another center."""
    moved = replace(untouched(D_IN), affine=Affine(center=tokens().mean(dim=0)))
    remedies = [None, moved]
    return [
        Member(
            sae=new_sae(m, remedy=remedies[m % 2], **more),
            config=settings(**{**BASE, **change}),
            tokens=OWN if m == 2 else None,
        )
        for m, change in enumerate(changes)
    ]


def state(members: list[Member]) -> dict[str, Tensor]:
    return {f"{m}.{n}": t.clone() for m, one in enumerate(members) for n, t in one.sae.state_dict().items()}


def same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        assert torch.equal(found[name].nan_to_num(7.0), value.nan_to_num(7.0)), name


def advance(sweep: Training, to: int, members: list[Member], diverging: dict[int, int]) -> list[dict[int, Record]]:
    """Step up to a step; before some of them a member's weights become NaN."""
    records = []
    while sweep.step < to and len(sweep.diverged) < len(members):
        with torch.no_grad():
            for m, step in diverging.items():
                if step == sweep.step:
                    members[m].sae.W_dec[0] = torch.nan
        found = sweep.advance()
        records += [found] if found else []
    return records


def broken_equals_unbroken(
    changes: list[dict[str, Any]], at: int, path: Path, diverging: dict[int, int], **more: Any
) -> None:
    unbroken, broken, resumed = (members_of(changes, **more) for _ in range(3))
    whole, first = Training(unbroken, tokens()), Training(broken, tokens())
    expected = advance(whole, STEPS, unbroken, diverging)
    records = advance(first, at, broken, diverging)
    first.save(path)
    at_break = state(broken)
    # The SAEs into which it is loaded are other ones.
    with torch.no_grad():
        for member in resumed:
            member.sae.W_enc.mul_(1.5)
    second = Training(resumed, tokens())
    second.load(path)
    assert second.step == at
    assert second.diverged == {m: whole.diverged[m] for m in whole.diverged if diverging[m] < at}
    same_bits(state(resumed), at_break)
    records += advance(second, STEPS, resumed, diverging)
    assert records == expected
    assert second.diverged == whole.diverged
    places = range(len(unbroken))
    assert [*map(second.last_resampling, places)] == [*map(whole.last_resampling, places)]
    same_bits(state(resumed), state(unbroken))


@pytest.mark.parametrize("at", [1, 13, 39])
@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_sweep_ends_with_the_same_bits_and_records(tmp_path: Path, way: str, at: int) -> None:
    broken_equals_unbroken(WAYS[way], at, tmp_path / "c.safetensors", {})


@pytest.mark.parametrize("diverging", [{0: 5}, {1: 5, 0: 20}, {2: 12, 1: 13}, {1: 30}], ids=str)
@pytest.mark.parametrize("way", ["seeds and buffers", "resampling"])
def test_a_sweep_in_which_some_diverged_resumes_too(tmp_path: Path, way: str, diverging: dict[int, int]) -> None:
    broken_equals_unbroken(WAYS[way], 16, tmp_path / "c.safetensors", diverging)


def test_learned_thresholds_are_resumed(tmp_path: Path) -> None:
    way = [{"lr": 1e-3}, {"lr": 1e-2}]
    broken_equals_unbroken(way, 16, tmp_path / "c.safetensors", {}, sparsity=BatchTopK(k=3))


def test_a_sweep_in_which_all_diverged_is_over_when_loaded(tmp_path: Path) -> None:
    members = members_of(WAYS["seeds and buffers"])
    sweep = Training(members, tokens())
    advance(sweep, STEPS, members, {0: 3, 1: 3, 2: 5})
    sweep.save(tmp_path / "c.safetensors")
    again = Training(members_of(WAYS["seeds and buffers"]), tokens())
    again.load(tmp_path / "c.safetensors")
    assert (again.step, again.diverged) == (6, sweep.diverged)
    assert list(again) == []


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([{"seed": 0}, {"seed": 1}], "expected a checkpoint of 2 SAEs, got one of 3"),
        ([{"seed": 0}, {"seed": 2}, {"seed": 0}], "expected the settings it was written under: seed 1, got 2"),
        ([{}, {"seed": 1, "lr": 0.5}, {}], r"expected the settings it was written under: lr 0\.003, got 0\.5"),
        ([{"seed": 1}, {}, {}], "expected the settings it was written under: seed 0, got 1"),
    ],
    ids=["fewer", "seed", "lr", "another order"],
)
def test_a_checkpoint_of_other_members_is_refused_and_nothing_is_touched(
    tmp_path: Path, others: list[dict[str, Any]], message: str
) -> None:
    saved = Training(members_of([{}, {"seed": 1}, {}]), tokens())
    advance(saved, 3, saved.members, {})
    saved.save(tmp_path / "c.safetensors")
    members = members_of(others)
    sweep = Training(members, tokens())
    before = state(members)
    with pytest.raises(InputError, match=message):
        sweep.load(tmp_path / "c.safetensors")
    assert (sweep.step, sweep.diverged) == (0, {})
    same_bits(state(members), before)


def test_a_checkpoint_of_another_sparsity_is_refused(tmp_path: Path) -> None:
    saved = Training(members_of([{}, {}]), tokens())
    saved.save(tmp_path / "c.safetensors")
    members = members_of([{}, {}], sparsity=TopK(k=2))
    sweep = Training(members, tokens())
    before = state(members)
    with pytest.raises(InputError, match=r"expected a checkpoint of TopK\(k=2\), .* got one of TopK\(k=3\)"):
        sweep.load(tmp_path / "c.safetensors")
    same_bits(state(members), before)


def test_a_stream_that_outlives_its_first_member_goes_on(tmp_path: Path) -> None:
    shared = [{"seed": 0}, {"seed": 1}, {"seed": 0}, {"seed": 1}]
    broken_equals_unbroken(shared, 20, tmp_path / "c.safetensors", {0: 9})


def test_members_that_share_their_tokens_otherwise_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    members = [Member(sae=new_sae(m), config=settings(**BASE)) for m in range(2)]
    sweep = Training(members, tokens())
    sweep.advance()
    sweep.save(path)
    others = [Member(sae=new_sae(m), config=settings(**BASE), tokens=tokens()) for m in range(2)]
    refusing = Training(others)
    before = state(others)
    with pytest.raises(InputError, match=r"share their tokens as before \(\[0, 0\].*got \[0, 1\]; pass the same"):
        refusing.load(path)
    same_bits(state(others), before)


def saved_by_the_version_before(
    changes: list[dict[str, Any]], at: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[int, Record]]:
    """A checkpoint that does not say who has ever fired; the records up to it."""
    members = members_of(changes)
    sweep = Training(members, tokens())
    records = advance(sweep, at, members, {})
    later = ("ever_fired", "last_resampling", "encoder_lengths")
    before = {name: tensor for name, tensor in sweep._tensors().items() if name not in later}
    with monkeypatch.context() as patched:
        patched.setattr(Training, "_tensors", lambda sweep: before)
        sweep.save(path)
    return records


@pytest.mark.parametrize("way", ["revival", "sign"])
def test_a_checkpoint_of_the_version_before_goes_on_with_the_same_records(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unbroken, resumed = tmp_path / "c.safetensors", members_of(WAYS[way]), members_of(WAYS[way])
    records = saved_by_the_version_before(WAYS[way], 14, path, monkeypatch)
    second = Training(resumed, tokens())
    second.load(path)
    records += advance(second, STEPS, resumed, {})
    assert records == advance(Training(unbroken, tokens()), STEPS, unbroken, {})


def test_a_checkpoint_of_the_version_before_is_refused_where_latents_are_resampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, members = tmp_path / "c.safetensors", members_of(WAYS["resampling"])
    saved_by_the_version_before(WAYS["resampling"], 14, path, monkeypatch)
    sweep, before = Training(members, tokens()), state(members)
    with pytest.raises(
        InputError, match=r"which latents have ever fired, got one of an earlier version of autopsae"
    ):
        sweep.load(path)
    same_bits(state(members), before)
    assert sweep.step == 0
