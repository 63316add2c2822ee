"""Sweeps from tokens to folders: names, the best, members that stop, splits, and what a kill leaves."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.activations.names import file_names
from autopsae.arrays import InputError
from autopsae.evaluation.reconstruction import evaluate
from autopsae.memory import available_bytes
from autopsae.remedies.remedy import center, untouched
from autopsae.run.driver import Interrupted
from autopsae.run.folder import Entry, Plan
from autopsae.run.many import run_sweep
from autopsae.run.observer import Observer
from autopsae.run.one import run
from autopsae.run.portions import Portions
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.training.config import Record, TrainConfig
from autopsae.training.memory import buffer_bytes, bytes_needed, bytes_of
from autopsae.training.one import train
from autopsae.training.sources import Member

HELD_OUT = torch.randn(100, 8, generator=torch.Generator().manual_seed(6), dtype=torch.float64) + 0.5
TOKENS = torch.randn(800, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.5
NAMES = {"slow": 1e-4, "good": 3e-3, "fast": 3e-2}


class Killed(Exception):
    pass


def entry(name: str, lr: float, *, scale: float = 1.0, **settings: Any) -> Entry:
    remedy = untouched(8) if name != "centered" else center(TOKENS.mean(dim=0), "mean")
    drawn = torch.Generator().manual_seed(0)
    sae = born(remedy, d_sae=40, sparsity=TopK(k=3), sample=TOKENS, generator=drawn, dtype=torch.float64)
    with torch.no_grad():
        sae.W_enc.mul_(scale)
    config = TrainConfig(**{"steps": 60, "lr": lr, "batch_tokens": 50, "buffer_tokens": 200, **settings})
    return Entry(member=Member(sae=sae, config=config, name=name), about={"name_given": name, "lr": lr})


def entries(**settings: Any) -> list[Entry]:
    return [entry(name, lr, **settings) for name, lr in NAMES.items()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_member_gets_the_folder_that_a_run_alone_would_give_it(tmp_path: Path) -> None:
    plan = Plan(evaluate_every=20)
    result = run_sweep(entries(), TOKENS, HELD_OUT, tmp_path / "sweep", plan=plan)
    for name, lr in NAMES.items():
        run(entry(name, lr), TOKENS, HELD_OUT, tmp_path / name, plan=plan)
        alone, together = files(tmp_path / name), files(tmp_path / "sweep" / name)
        assert {*alone} == {*together}
        # In float64 a stack of these adds up as one SAE does.
        assert alone == together
    assert {p.name for p in (tmp_path / "sweep").iterdir()} == {*NAMES, "sweep.json"}
    saved = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    header = {"format": "autopsae-sweep", "version": 2}
    header |= {name: saved[name] for name in ("content_sha256", "provenance")}
    assert saved == {**result, **header}


def test_the_best_is_the_one_with_the_least_error_on_held_out_tokens(tmp_path: Path) -> None:
    result = run_sweep(entries(), TOKENS, HELD_OUT, tmp_path / "out")
    errors = {name: evaluate(SAE.load(tmp_path / "out" / name / "sae"), HELD_OUT).mse_raw for name in NAMES}
    assert {m["name"]: m["mse_raw"] for m in result["members"]} == errors
    assert result["best"] == {"": min(errors, key=lambda name: errors[name])}
    assert len({*errors.values()}) == 3


def test_a_member_that_diverges_leaves_its_summary_and_the_others_go_on(tmp_path: Path) -> None:
    listed = [entry("slow", 1e-4), entry("broken", 3e-3, scale=1e300), entry("good", 3e-3)]
    result = run_sweep(listed, TOKENS, HELD_OUT, tmp_path / "out")
    summaries = {m["name"]: m for m in result["members"]}
    assert "step 0: the loss is" in summaries["broken"]["diverged"]
    assert summaries["broken"]["steps"] == 0
    assert {p.name for p in (tmp_path / "out" / "broken").iterdir()} == {
        "birth.json",
        "records.jsonl",
        "summary.json",
    }
    assert result["best"] == {"": "good"}
    alone = run(entry("good", 3e-3), TOKENS, HELD_OUT, tmp_path / "alone")
    assert summaries["good"]["mse_raw"] == alone["mse_raw"]


def test_a_member_whose_result_is_absurd_has_diverged_and_is_never_the_best(tmp_path: Path) -> None:
    result = run_sweep([entry("wild", 1e6), entry("good", 3e-3)], TOKENS, HELD_OUT, tmp_path / "out")
    wild, good = result["members"]
    assert wild["diverged"].startswith("step 59: the raw FVU on 100 held-out tokens is ")
    assert wild["diverged"].endswith("training has diverged; lower the learning rate (1e+06)")
    assert not (tmp_path / "out" / "wild" / "sae.json").exists()
    assert good["diverged"] is None
    assert result["best"] == {"": "good"}
    assert run_sweep([entry("wild", 1e6)], TOKENS, HELD_OUT, tmp_path / "alone")["best"] == {"": None}


def test_births_are_told_by_name_before_the_steps_of_those_trained_at_once(tmp_path: Path) -> None:
    told: list[list[str]] = []
    run_sweep(
        entries(steps=1),
        TOKENS,
        HELD_OUT,
        tmp_path / "out",
        portions=Portions(groups=[["slow", "good"], ["fast"]], bytes_at_once=0),
        observer=Observer(
            at_birth=lambda births: told.append(["born", *births]),
            on_records=lambda records: told.append(["step", *records]),
        ),
    )
    assert told == [["born", "slow", "good"], ["step", "slow", "good"], ["born", "fast"], ["step", "fast"]]


def test_members_with_tokens_of_their_own_say_how_many_these_are(tmp_path: Path) -> None:
    one, other = entry("one", 3e-3), entry("other", 3e-3)
    other = replace(other, member=replace(other.member, tokens=TOKENS[:600]), held_out=HELD_OUT[:50])
    members = run_sweep([one, other], TOKENS, HELD_OUT, tmp_path / "out")["members"]
    assert [(m["training_tokens"], m["held_out_tokens"]) for m in members] == [(800, 100), (600, 50)]
    assert [(m["dead_tokens"], m["birth"]["dead_tokens"]) for m in members] == [(100, 100), (50, 50)]


def test_where_all_diverge_there_is_no_best(tmp_path: Path) -> None:
    listed = [entry("a", 1e-3, scale=1e300), entry("b", 1e-3, scale=1e300)]
    assert run_sweep(listed, TOKENS, HELD_OUT, tmp_path / "out")["best"] == {"": None}


def test_a_member_that_reaches_the_target_stops_there(tmp_path: Path) -> None:
    plan = Plan(evaluate_every=20, target_fvu=0.5)
    result = run_sweep(entries(), TOKENS, HELD_OUT, tmp_path / "out", plan=plan)
    steps = {m["name"]: (m["steps"], m["fvu_raw"] <= 0.5) for m in result["members"]}
    assert steps["slow"] == (60, False)
    assert steps["fast"][0] < 60
    assert steps["fast"][1]
    lines = (tmp_path / "out" / "fast" / "records.jsonl").read_text().splitlines()
    assert len(lines) == steps["fast"][0]


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_member_is_trained_on_its_own_tokens_and_shift(tmp_path: Path, kind: str) -> None:
    shift = torch.linspace(-1, 1, 8, dtype=torch.float64)
    own, plain = entry("good", 3e-3), entry("good", 3e-3)
    own = replace(own, member=replace(own.member, tokens=TOKENS[:600], shift=shift))
    if kind == "run":
        run(own, TOKENS, HELD_OUT, tmp_path / "out")
    else:
        run_sweep([own], TOKENS, HELD_OUT, tmp_path / "out")
    train(plain.member.sae, TOKENS[:600] + shift, plain.member.config)
    for name, value in plain.member.sae.state_dict().items():
        assert torch.allclose(own.member.sae.state_dict()[name], value, rtol=1e-9, atol=1e-9), name


class Poisoned:
    """Tokens of which one is NaN from the 3rd pass on."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.passes += 1
        x = TOKENS.clone()
        if self.passes > 2:
            x[321, 2] = torch.nan
        yield x


def test_tokens_that_go_bad_in_a_sweep_are_told_with_the_step_and_the_checkpoint_that_is_left(
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "out" / "checkpoint-0.safetensors"
    with pytest.raises(InputError, match=r"^step \d+: .*got NaN.*token 321") as raised:
        run_sweep(entries(), Poisoned(), HELD_OUT, tmp_path / "out", plan=Plan(checkpoint_every=10))
    assert str(raised.value).endswith(
        f"; the last good checkpoint is {checkpoint}, from which the run can be resumed"
    )


def test_an_interruption_in_the_step_that_reaches_the_target_costs_nothing(tmp_path: Path) -> None:
    plan, one = Plan(evaluate_every=20, target_fvu=10.0), entry("good", 3e-3)
    whole = run(one, TOKENS, HELD_OUT, tmp_path / "whole", plan=plan)
    assert whole["steps"] == 20
    steps = 0

    @contextmanager
    def interrupted_at_the_target() -> Iterator[Callable[[], bool]]:
        yield lambda: steps == 20
        raise KeyboardInterrupt

    def count(records: dict[str, Record]) -> None:
        nonlocal steps
        steps = records["good"].step + 1

    observer = Observer(on_records=count, delay=interrupted_at_the_target)
    out = tmp_path / "broken"
    with pytest.raises(Interrupted, match="interrupted after 20 of 60 steps"):
        run(entry("good", 3e-3), TOKENS, HELD_OUT, out, plan=plan, observer=observer)
    assert run(entry("good", 3e-3), TOKENS, HELD_OUT, out, plan=plan, resume=True) == whole
    assert files(out) == files(tmp_path / "whole")


@contextmanager
def interrupted_at_once() -> Iterator[Callable[[], bool]]:
    """As the command line delays a signal that came during the first step."""
    yield lambda: True
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_an_interruption_is_answered_after_the_step_whenever_the_next_record_is_due(
    tmp_path: Path, kind: str
) -> None:
    def act(out: Path, **more: Any) -> None:
        listed = entries(record_every=60)
        if kind == "run":
            run(listed[0], TOKENS, HELD_OUT, out, **more)
        else:
            run_sweep(listed, TOKENS, HELD_OUT, out, **more)

    act(tmp_path / "whole")
    with pytest.raises(Interrupted, match=r"^interrupted after 1 of 60 steps; the checkpoint is .*/checkpoint"):
        act(tmp_path / "broken", observer=Observer(delay=interrupted_at_once))
    with pytest.raises(Interrupted, match=r"^interrupted after 2 of 60 steps"):
        act(tmp_path / "broken", observer=Observer(delay=interrupted_at_once), resume=True)
    act(tmp_path / "broken", resume=True)
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


@pytest.mark.parametrize("killed_at", [5, 25, 59])
@pytest.mark.parametrize("groups", [[["slow", "good", "fast"]], [["slow", "good"], ["fast"]]])
def test_a_killed_sweep_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, groups: list[list[str]], killed_at: int
) -> None:
    portions, plan = Portions(groups=groups, bytes_at_once=0), Plan(checkpoint_every=10, evaluate_every=20)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = run_sweep(entries(), TOKENS, HELD_OUT, whole, portions=portions, plan=plan)

    def kill(records: dict[str, Record]) -> None:
        if {groups[-1][0]} <= {*records} and records[groups[-1][0]].step == killed_at:
            raise Killed

    with pytest.raises(Killed):
        run_sweep(
            entries(), TOKENS, HELD_OUT, killed, portions=portions, plan=plan, observer=Observer(on_records=kill)
        )
    with pytest.raises(InputError, match="unfinished sweep; resume it"):
        run_sweep(entries(), TOKENS, HELD_OUT, killed, portions=portions, plan=plan)
    # The groups are those of the beginning, whatever memory is free now.
    again = run_sweep(entries(), TOKENS, HELD_OUT, killed, plan=plan, resume=True)
    assert again == expected
    assert files(killed) == files(whole)


def test_a_sweep_resumed_with_other_members_is_refused(tmp_path: Path) -> None:
    def kill(records: dict[str, Record]) -> None:
        raise Killed

    with pytest.raises(Killed):
        run_sweep(entries(), TOKENS, HELD_OUT, tmp_path / "out", observer=Observer(on_records=kill))
    before = files(tmp_path / "out")
    others = [*entries()[:2], entry("other", 1e-2)]
    with pytest.raises(InputError, match="these differ: fast, other"):
        run_sweep(others, TOKENS, HELD_OUT, tmp_path / "out", resume=True)
    assert files(tmp_path / "out") == before


def test_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected members, each with a name of its own, got \['a', 'a'\]"):
        run_sweep([entry("a", 1e-3), entry("a", 1e-2)], TOKENS, HELD_OUT, tmp_path / "out")
    with pytest.raises(InputError, match=r"expected members, each with a name of its own, got \[\]"):
        run_sweep([], TOKENS, HELD_OUT, tmp_path / "out")
    with pytest.raises(InputError, match=r"expected names of Unicode characters, got '\\ud800'; pass another"):
        run_sweep([entry("\ud800", 1e-3)], TOKENS, HELD_OUT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


HOSTILE = [
    "a/b",
    "a",
    "",
    ".",
    "..",
    "../up",
    "/root",
    "x:y",
    "x" * 300,
    "case",
    "Case",
    "CON",
    "sweep.json",
]


def test_members_of_any_names_get_folders_of_their_own_in_the_sweep(tmp_path: Path) -> None:
    listed = [entry(name, 1e-3, steps=2) for name in HOSTILE]
    result = run_sweep(listed, TOKENS, HELD_OUT, tmp_path / "out")
    assert [member["name"] for member in result["members"]] == HOSTILE
    folders = [member["folder"] for member in result["members"]]
    assert folders == [*file_names(HOSTILE).values()]
    assert len({folder.lower() for folder in folders}) == len(HOSTILE)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*folders, "sweep.json"}
    for name, folder in zip(HOSTILE, folders, strict=True):
        assert json.loads((tmp_path / "out" / folder / "summary.json").read_text())["name_given"] == name
        SAE.load(tmp_path / "out" / folder / "sae")
    again = [entry(name, 1e-3, steps=2) for name in HOSTILE]
    assert run_sweep(again, TOKENS, HELD_OUT, tmp_path / "out", resume=True) == result


def test_what_a_summary_says_besides_does_not_name_the_best(tmp_path: Path) -> None:
    listed = [replace(one, about={"name": "other", "data": "x"}) for one in entries(steps=5)]
    result = run_sweep(listed, TOKENS, HELD_OUT, tmp_path / "out")
    assert [member["name"] for member in result["members"]] == [*NAMES]
    assert {*result["best"]} == {""}
    assert result["best"][""] in NAMES


def test_portions_that_are_not_of_all_members_are_refused(tmp_path: Path) -> None:
    portions = Portions(groups=[["slow", "who"]], bytes_at_once=0)
    with pytest.raises(InputError, match="portions: expected groups of all members, got"):
        run_sweep(entries(), TOKENS, HELD_OUT, tmp_path / "out", portions=portions)


def test_a_finished_sweep_is_not_replaced_and_resuming_it_returns_its_results(tmp_path: Path) -> None:
    result = run_sweep(entries(steps=5), TOKENS, HELD_OUT, tmp_path / "out")
    with pytest.raises(InputError, match="expected a new folder"):
        run_sweep(entries(steps=5), TOKENS, HELD_OUT, tmp_path / "out")
    before = files(tmp_path / "out")
    # As a kill leaves it that came after the results and before this was removed.
    (tmp_path / "out" / "portions.json").write_text("")
    assert run_sweep(entries(steps=5), TOKENS, HELD_OUT, tmp_path / "out", resume=True) == result
    assert files(tmp_path / "out") == before
    with pytest.raises(InputError, match=r"slow: expected the settings .*steps 5, got 6"):
        run_sweep(entries(steps=6), TOKENS, HELD_OUT, tmp_path / "out", resume=True)
    with pytest.raises(InputError, match="these differ: fast, slow"):
        run_sweep(entries(steps=5)[1:2], TOKENS, HELD_OUT, tmp_path / "out", resume=True)


def test_measurements_and_checkpoints_must_fall_on_records(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="checkpoint_every: expected a multiple of record_every = 4, got 10"):
        run_sweep(entries(record_every=4), TOKENS, HELD_OUT, tmp_path / "out", plan=Plan(checkpoint_every=10))
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_split_where_it_does_not_fit() -> None:
    listed = [entry(f"m{i}", 1e-3) for i in range(7)]
    one, three, all_seven = (bytes_of([e.member for e in listed[:n]]) for n in (1, 3, 7))
    sizes = {
        budget: [len(group) for group in Portions.of(listed, budget).groups]
        for budget in (1, one, three, all_seven)
    }
    assert [*sizes.values()] == [[1] * 7, [1] * 7, [2, 3, 2], [7]]
    assert Portions.of(listed, three).bytes_at_once == three
    assert [name for group in Portions.of(listed, 1).groups for name in group] == [f"m{i}" for i in range(7)]


def test_a_buffer_takes_no_more_than_the_tokens_there_are() -> None:
    listed = [entry("a", 1e-3, buffer_tokens=10**9), entry("b", 1e-2, buffer_tokens=10**9)]
    assert Portions.of(listed, 10**7, tokens=800).groups == [["a", "b"]]
    assert Portions.of(listed, 10**7).groups == [["a"], ["b"]]
    assert buffer_bytes([e.member for e in listed], 800) == 2 * 800 * 8 * 8


def test_what_a_member_needs_grows_with_its_parts() -> None:
    member = entry("m", 1e-3).member
    parameters = sum(p.numel() for p in member.sae.parameters())
    assert bytes_needed(member) > 8 * (4 * parameters + 50 * 40)
    more = Member(sae=member.sae, config=TrainConfig(steps=1, lr=1e-3, batch_tokens=100))
    assert bytes_needed(more) > bytes_needed(member)
    assert 0 < available_bytes(torch.device("cpu")) < 1 << 50
