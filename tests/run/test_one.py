import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.activations.spread import spread
from autopsae.arrays import InputError, Tokens
from autopsae.cli.outcome import print_run
from autopsae.diagnosis.prescription import Prescription
from autopsae.disk import LOCK, DiskFull, hold_lock, name_full_disk
from autopsae.evaluation.reconstruction import evaluate
from autopsae.remedies.remedy import center, untouched
from autopsae.run import one
from autopsae.run.finished import summary_kind
from autopsae.run.folder import Entry, Plan
from autopsae.run.observer import Observer
from autopsae.run.start import layer_norm_tokens
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import collect
from autopsae.training.config import Record, TrainConfig
from autopsae.training.loop import Training
from autopsae.training.one import Diverged
from autopsae.training.revival import Resampling
from autopsae.training.sources import Member

CONFIG = TrainConfig(steps=60, lr=3e-3, batch_tokens=50, buffer_tokens=200)


def tokens(n: int = 800) -> torch.Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(5)) + 0.5


def new_sae() -> SAE:
    drawn = torch.Generator().manual_seed(0)
    return born(untouched(8), d_sae=40, sparsity=TopK(k=3), sample=tokens(), generator=drawn)


def run(
    sae: SAE,
    training: Tokens,
    held_out: Tokens,
    config: TrainConfig,
    out: Path,
    *,
    about: dict[str, Any],
    progress: Callable[[Record], None] | None = None,
    plan: Plan | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    entry = Entry(member=Member(sae=sae, config=config, name="one"), about=about)

    def each(records: dict[str, Record]) -> None:
        if progress:
            progress(records["one"])

    return one.run(entry, training, held_out, out, plan=plan, resume=resume, observer=Observer(on_records=each))


class Stopped(Exception):
    pass


def stopped_at(step: int) -> Callable[[Record], None]:
    def stop(record: Record) -> None:
        if record.step == step:
            raise Stopped

    return stop


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_the_sae_its_records_measurements_and_a_summary_and_no_checkpoint(tmp_path: Path) -> None:
    plan = Plan(checkpoint_every=20, evaluate_every=20)
    summary = run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path / "out", about={"layer": "hs3"}, plan=plan)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "birth.json",
        "held_out.jsonl",
        "records.jsonl",
        "sae.json",
        "sae.safetensors",
        "summary.json",
    }
    saved = json.loads((tmp_path / "out" / "summary.json").read_text())
    header = {"format": "autopsae-summary", "version": 2}
    header |= {name: saved[name] for name in ("content_sha256", "provenance")}
    assert saved == {**summary, **header}
    assert summary["layer"] == "hs3"
    assert sum(summary["firing_rates"].values()) == 40
    assert summary["firing_rates"]["<= 0"] == round(40 * summary["dead"])
    held_out = lines(tmp_path / "out" / "held_out.jsonl")
    assert [row["step"] for row in held_out] == [19, 39, 59]
    assert held_out[-1]["fvu_raw"] == summary["fvu_raw"] < held_out[0]["fvu_raw"] < summary["birth"]["fvu_raw"]


def test_a_target_on_held_out_tokens_stops_the_run_at_the_first_measurement_that_reaches_it(tmp_path: Path) -> None:
    run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path / "a", about={}, plan=Plan(evaluate_every=10))
    errors = [row["fvu_raw"] for row in lines(tmp_path / "a" / "held_out.jsonl")]
    plan = Plan(evaluate_every=10, target_fvu=errors[2] * 1.0001)
    summary = run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path / "b", about={}, plan=plan)
    assert summary["steps"] == 30
    assert len(lines(tmp_path / "b" / "records.jsonl")) == 30
    assert summary["fvu_raw"] == errors[2]


def test_an_unfinished_run_is_resumed_only_if_asked(tmp_path: Path) -> None:
    plan = Plan(checkpoint_every=20)
    arguments = (tokens(), tokens(100), CONFIG)
    with pytest.raises(Stopped):
        run(new_sae(), *arguments, tmp_path / "out", about={}, plan=plan, progress=stopped_at(33))
    with pytest.raises(
        InputError, match="holds the checkpoint of an unfinished run; resume it, or pass another name"
    ):
        run(new_sae(), *arguments, tmp_path / "out", about={}, plan=plan)
    resumed = run(new_sae(), *arguments, tmp_path / "out", about={}, plan=plan, resume=True)
    whole = run(new_sae(), *arguments, tmp_path / "whole", about={}, plan=plan)
    assert resumed == whole
    assert lines(tmp_path / "out" / "records.jsonl") == lines(tmp_path / "whole" / "records.jsonl")


class PoisonedLater:
    """Good tokens, of which one is NaN from the n-th reading on."""

    def __init__(self, readings: int) -> None:
        self.left = readings

    def __iter__(self) -> Iterator[torch.Tensor]:
        x = tokens()
        if self.left <= 0:
            x[321, 2] = torch.nan
        self.left -= 1
        yield x


def test_a_nan_at_step_1000_stops_the_run_says_where_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = TrainConfig(steps=2000, lr=1e-3, batch_tokens=50, buffer_tokens=800)  # 16 steps an epoch
    plan, out = Plan(checkpoint_every=100), tmp_path / "out"
    stream = PoisonedLater(63)
    checkpoint = out / "checkpoint.safetensors"
    with pytest.raises(InputError, match=r"step 1008: expected finite activations, got NaN.*token 321") as raised:
        run(new_sae(), stream, tokens(100), config, out, about={}, plan=plan)
    assert f"the last good checkpoint is {checkpoint}" in str(raised.value)
    resumed = Training([Member(sae=new_sae(), config=config)], tokens())
    resumed.load(checkpoint)
    assert resumed.step == 1000
    assert all(torch.isfinite(value).all() for value in resumed.members[0].sae.state_dict().values())
    assert not (out / "summary.json").exists()


def test_a_run_that_diverges_says_at_which_step_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    sae = new_sae()

    def poison(record: Record) -> None:
        if record.step == 44:
            with torch.no_grad():
                sae.W_dec[:] = torch.inf

    plan = Plan(checkpoint_every=20)
    message = (
        r"step 45: the loss is (nan|inf); lower the learning rate \(0.003\); the last good checkpoint is .*out"
    )
    with pytest.raises(Diverged, match=message):
        run(sae, tokens(), tokens(100), CONFIG, tmp_path / "out", about={}, plan=plan, progress=poison)
    resumed = Training([Member(sae=new_sae(), config=CONFIG)], tokens())
    resumed.load(tmp_path / "out" / "checkpoint.safetensors")
    assert resumed.step == 40


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"checkpoint_every": 0}, "at least 1 step"),
        ({"evaluate_every": -1}, "at least 1 step"),
        ({"target_fvu": 0.1}, "target_fvu: expected evaluate_every too"),
        ({"target_fvu": 0.0, "evaluate_every": 5}, r"expected target_fvu > 0, got 0\.0"),
    ],
)
def test_plans_that_cannot_be_are_refused(plan: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan(**plan)  # type: ignore[arg-type]


def test_statistics_of_layer_normed_tokens_are_those_of_the_normalised_matrix() -> None:
    x = tokens().double()
    normed = (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True, unbiased=False)
    assert torch.allclose(collect(layer_norm_tokens(x)).raw.mean, normed.mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("target", [False, True])
def test_a_run_killed_while_it_measures_measures_again(
    tmp_path: Path, target: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    whole = tmp_path / "whole"
    run(new_sae(), tokens(), tokens(100), CONFIG, whole, about={}, plan=Plan(evaluate_every=20))
    aim = lines(whole / "held_out.jsonl")[1]["fvu_raw"] if target else None
    plan, calls = Plan(checkpoint_every=20, evaluate_every=20, target_fvu=aim), 0
    expected = run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path / "expected", about={}, plan=plan)

    def killed_at_the_second(sae: SAE, held_out: torch.Tensor, **options: Any) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:  # at birth, after step 19, and now after step 39
            raise Killed
        return evaluate(sae, held_out, **options)

    with monkeypatch.context() as patched:
        patched.setattr("autopsae.run.folder.evaluate", killed_at_the_second)
        with pytest.raises(Killed):
            run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path / "out", about={}, plan=plan)
    assert (
        run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path / "out", about={}, plan=plan, resume=True)
        == expected
    )
    assert lines(tmp_path / "out" / "held_out.jsonl") == lines(tmp_path / "expected" / "held_out.jsonl")


def test_resuming_a_finished_run_returns_its_summary_and_changes_nothing(tmp_path: Path) -> None:
    arguments = (tokens(), tokens(100), CONFIG, tmp_path / "out")
    summary = run(new_sae(), *arguments, about={"layer": "hs1"})
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    # As a kill leaves it that came after the summary and before the checkpoint was removed.
    (tmp_path / "out" / "checkpoint.safetensors").write_bytes(b"")
    assert run(new_sae(), *arguments, about={"layer": "hs1"}, resume=True) == summary
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(InputError, match="expected a new folder, or one without a finished run"):
        run(new_sae(), *arguments, about={"layer": "hs1"})


def test_a_folder_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        hold_lock(out / LOCK, what=out),
        pytest.raises(InputError, match="out: expected a place that no other process"),
    ):
        run(new_sae(), tokens(), tokens(100), CONFIG, out, about={})
    assert not [*out.iterdir()]


def test_a_disk_that_is_full_leaves_the_last_checkpoint_from_which_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, write: object) -> None:
        with name_full_disk(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    arguments = (tokens(), tokens(100), CONFIG, tmp_path / "out")
    plan = Plan(checkpoint_every=20)
    with monkeypatch.context() as patched:

        def fill(record: Record) -> None:
            if record.step == 30:
                patched.setattr("autopsae.files.write_whole", full)

        with pytest.raises(DiskFull) as raised:
            run(new_sae(), *arguments, about={}, plan=plan, progress=fill)
    checkpoint = tmp_path / "out" / "checkpoint.safetensors"
    assert str(raised.value).startswith(f"{checkpoint}: the disk is full (")
    assert str(raised.value).endswith(
        f"the last good checkpoint is {checkpoint}, from which the run can be resumed"
    )
    whole = run(new_sae(), *arguments[:3], tmp_path / "whole", about={})
    assert run(new_sae(), *arguments, about={}, plan=plan, resume=True) == whole


@pytest.mark.parametrize(
    ("about", "steps", "message"),
    [
        ("hs2", 60, "the settings that the run began with: layer hs1, got hs2"),
        ("hs1", 70, "the finished run in it: steps 60, got 70"),
    ],
)
def test_a_finished_run_with_other_settings_is_not_taken_for_this_one(
    tmp_path: Path, about: str, steps: int, message: str
) -> None:
    run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path, about={"layer": "hs1"})
    config = replace(CONFIG, steps=steps)
    with pytest.raises(InputError, match=message):
        run(new_sae(), tokens(), tokens(100), config, tmp_path, about={"layer": about}, resume=True)


def test_a_resumed_run_must_be_about_the_same(tmp_path: Path) -> None:
    plan, data = Plan(checkpoint_every=20), (tokens(), tokens(100), CONFIG)
    with pytest.raises(Stopped):
        run(new_sae(), *data, tmp_path, about={"init": "zero"}, plan=plan, progress=stopped_at(30))
    with pytest.raises(InputError, match="expected the settings that the run began with: init zero, got mean"):
        run(new_sae(), *data, tmp_path, about={"init": "mean"}, plan=plan, resume=True)


def summary_of(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def test_the_end_of_a_run_says_what_is_expected_on_a_million_tokens(tmp_path: Path) -> None:
    sae, held_out = new_sae(), tokens(100)
    summary = run(sae, tokens(), held_out, CONFIG, tmp_path, about={}, plan=Plan(evaluate_every=30))
    expected = evaluate(sae, held_out).dead_forecast
    assert expected is not None
    assert summary["dead_forecast"] == expected.value <= summary["dead"]
    assert tuple(summary["dead_forecast_interval"]) == (expected.low, expected.high)
    assert summary["dead_forecast_tokens"] == 1_000_000
    # Neither before nor on the way, where it would cost more than it says.
    assert "dead_forecast" not in summary["birth"]
    assert "dead_forecast" not in lines(tmp_path / "held_out.jsonl")[-1]


def test_a_summary_without_a_forecast_is_read_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path, about={"d_sae": 40})
    print_run(tmp_path, summary)
    printed = capsys.readouterr().out
    assert "expected dead on 1,000,000 tokens; raw FVU" in printed
    old = {name: value for name, value in summary.items() if not name.startswith("dead_forecast")}
    assert summary_kind(old) is None
    print_run(tmp_path, old)
    assert "expected" not in capsys.readouterr().out


def test_birth_and_end_are_measured_on_all_held_out_tokens_and_the_way_on_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopsae.run.folder.ON_THE_WAY", 40)
    sae, held_out = new_sae(), tokens(100)
    born_dead = evaluate(sae, held_out).fates.dead
    summary = run(sae, tokens(), held_out, CONFIG, tmp_path, about={}, plan=Plan(evaluate_every=30))
    assert (summary["training_tokens"], summary["held_out_tokens"]) == (800, 100)
    for measured in (summary, summary["birth"]):
        assert measured["tokens"] == measured["dead_tokens"] == 100
    assert summary["birth"]["dead"] == born_dead
    last = lines(tmp_path / "held_out.jsonl")[-1]
    assert last["tokens"] == last["dead_tokens"] == 40
    few = evaluate(sae, held_out[spread(0, 100, chosen=40, of=100)])
    assert (last["dead"], last["fvu_raw"]) == (few.fates.dead, few.fvu_raw)
    assert summary["fvu_raw"] == evaluate(sae, held_out).fvu_raw != last["fvu_raw"]


def test_every_dead_fraction_of_a_result_says_on_how_many_tokens(tmp_path: Path) -> None:
    config = TrainConfig(steps=60, lr=3e-3, batch_tokens=50, buffer_tokens=200, dead_after_tokens=1500)
    run(new_sae(), tokens(), tokens(100), config, tmp_path, about={}, plan=Plan(evaluate_every=20))
    records = lines(tmp_path / "records.jsonl")
    rows = [*records, *lines(tmp_path / "held_out.jsonl"), summary_of(tmp_path), summary_of(tmp_path)["birth"]]
    rows.append(json.loads((tmp_path / "birth.json").read_text())["birth"])
    for row in rows:
        assert (row["dead"] is None) == (row["dead_tokens"] is None)
    assert [row["dead_tokens"] for row in records] == [None] * 29 + [1500] * 31


def test_a_stream_of_unknown_length_has_been_counted_at_the_end_of_the_run(tmp_path: Path) -> None:
    summary = run(new_sae(), PoisonedLater(10**6), tokens(100), CONFIG, tmp_path, about={})
    assert summary["training_tokens"] == 800


def test_a_run_whose_result_is_absurd_has_diverged_and_leaves_no_sae(tmp_path: Path) -> None:
    config = TrainConfig(steps=20, lr=1e6, batch_tokens=50)
    plan, out = Plan(checkpoint_every=10), tmp_path / "out"
    message = r"step 19: the raw FVU on 100 held-out tokens is .*e\+\d+ .*lower the learning rate \(1e\+06\)"
    with pytest.raises(Diverged, match=message) as raised:
        run(new_sae(), tokens(), tokens(100), config, out, about={}, plan=plan)
    checkpoint = out / "checkpoint.safetensors"
    assert str(raised.value).endswith(f"; the last checkpoint is {checkpoint}, from which the run can be resumed")
    assert {path.name for path in out.iterdir()} == {
        "birth.json",
        "records.jsonl",
        "summary.json",
        checkpoint.name,
    }
    summary = summary_of(out)
    assert str(raised.value).startswith(summary["diverged"])
    assert summary["steps"] == 20
    assert "fvu_raw" not in summary


def test_a_short_run_from_far_away_has_not_diverged_but_is_said_to_need_more_steps(tmp_path: Path) -> None:
    x = tokens() + 100 * 8**0.5
    sae = born(untouched(8), d_sae=40, sparsity=TopK(k=3), sample=x, generator=torch.Generator())
    summary = run(sae, x, x[:100], TrainConfig(steps=3, lr=1e-3, batch_tokens=50), tmp_path, about={})
    assert summary["birth"]["fvu_raw"] > summary["fvu_raw"] > 1e4
    assert summary["diverged"] is None
    assert summary["warnings"][0].endswith("worse than predicting their mean, which gives 1; train longer")


def test_a_result_worse_than_the_mean_is_a_warning_and_a_good_one_none(tmp_path: Path) -> None:
    bad = run(
        new_sae(), tokens(), tokens(100), TrainConfig(steps=20, lr=1.0, batch_tokens=50), tmp_path / "a", about={}
    )
    assert bad["fvu_raw"] > 1
    assert bad["diverged"] is None
    [said] = bad["warnings"]
    assert said.endswith("worse than predicting their mean, which gives 1; lower the learning rate (1)")
    good = run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path / "b", about={})
    assert good["fvu_raw"] < 1
    assert (good["warnings"], good["resampled_at_end"]) == ([], None)


@pytest.mark.parametrize("held_out", [tokens(1), tokens(1).expand(50, -1)])
def test_a_run_whose_held_out_tokens_do_not_differ_has_no_fvu_and_says_so(
    held_out: torch.Tensor, tmp_path: Path
) -> None:
    plan = Plan(evaluate_every=10, target_fvu=0.5)
    summary = run(new_sae(), tokens(), held_out, CONFIG, tmp_path, about={}, plan=plan)
    assert (summary["fvu_raw"], summary["fvu_typical"], summary["birth"]["fvu_raw"]) == (None, None, None)
    assert summary["steps"] == CONFIG.steps, "a target is not reached by an FVU that there is not"
    assert summary["warnings"][0].startswith(f"no FVU: the {len(held_out)} held-out tokens do not differ")
    assert {row["fvu_raw"] for row in lines(tmp_path / "held_out.jsonl")} == {None}
    again = run(new_sae(), tokens(), held_out, CONFIG, tmp_path, about={}, plan=plan, resume=True)
    assert again == summary


@pytest.mark.parametrize(("target", "before_end"), [(None, None), (1e9, 0)], ids=["all its steps", "at a target"])
def test_a_run_that_stops_early_as_latents_were_drawn_afresh_says_so(
    tmp_path: Path, target: float | None, before_end: int | None
) -> None:
    sae = born(
        untouched(8), d_sae=40, sparsity=TopK(k=3), sample=tokens(), generator=torch.Generator(), encoder_bias=True
    )
    assert sae.b_enc is not None
    with torch.no_grad():
        sae.b_enc[:12] = -100.0
    method = Resampling(every_steps=20, dead_after_tokens=1000)
    config = TrainConfig(steps=40, lr=3e-3, batch_tokens=50, resampling=method, seed=3)
    plan = Plan(evaluate_every=20, target_fvu=target)
    summary = run(sae, tokens(), tokens(100), config, tmp_path, about={}, plan=plan)
    drawn = [row["resampled"] for row in lines(tmp_path / "records.jsonl")]
    assert drawn[19] >= 12
    assert summary["steps"] == (20 if target else 40)
    if before_end is None:
        assert (summary["resampled_at_end"], summary["warnings"]) == (None, [])
    else:
        assert drawn[-1] > 0
        assert summary["resampled_at_end"] == {"latents": drawn[-1], "steps_before_end": before_end}
        assert f"{drawn[-1]} latents were drawn afresh 0 steps before the end" in summary["warnings"][-1]


@pytest.mark.parametrize("d_sae", [40, 64])
def test_a_prescription_for_another_layer_or_sae_is_said_in_the_summary(tmp_path: Path, d_sae: int) -> None:
    remedy = center(torch.zeros(8), "mean")
    prescription = Prescription(remedy=remedy, reason="", layer="hs3", d_sae=d_sae, sparsity=TopK(k=3))
    member = Member(sae=new_sae(), config=CONFIG, name="one")
    entry = Entry(member=member, about={}, data="hs3", prescription=prescription)
    summary = one.run(entry, tokens(), tokens(100), tmp_path)
    found = summary["prescription"]
    assert found.pop("differs") == ([] if d_sae == 40 else ["d_sae 64, here 40"])
    assert found == {"remedy": "mean", "layer": "hs3", "d_in": 8, "d_sae": d_sae, "k": 3, "sparsity": "topk"}


def test_what_held_out_tokens_say_at_birth_is_told_before_the_first_step_also_of_a_resumed_run(
    tmp_path: Path,
) -> None:
    told: list[dict[str, Any]] = []

    def go(*, resume: bool, stop: int) -> None:
        def progress(records: dict[str, Record]) -> None:
            told.append({"step": records["one"].step})
            if records["one"].step == stop:
                raise Stopped

        entry = Entry(member=Member(sae=new_sae(), config=CONFIG, name="one"), about={})
        plan = Plan(checkpoint_every=20)
        with pytest.raises(Stopped):
            one.run(
                entry,
                tokens(),
                tokens(100),
                tmp_path,
                plan=plan,
                resume=resume,
                observer=Observer(on_records=progress, at_birth=lambda births: told.append(births["one"])),
            )

    go(resume=False, stop=30)
    go(resume=True, stop=35)
    born = evaluate(new_sae(), tokens(100))
    births = [place for place, one_of in enumerate(told) if "dead" in one_of]
    assert births == [0, 32]
    assert told[0] == told[32]
    assert (told[0]["dead"], told[0]["dead_tokens"]) == (born.fates.dead, 100)
    assert told[33] == {"step": 20}


def test_a_run_says_on_which_tokens_it_was_trained_and_measured(tmp_path: Path) -> None:
    summary = run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path, about={})
    digests = json.loads((tmp_path / "birth.json").read_text())["digests"]
    assert summary["digests"] == digests
    assert (digests["training"]["tokens"], digests["held_out"]["tokens"]) == (800, 100)


@pytest.mark.parametrize(
    ("training", "held_out", "what"),
    [
        (tokens() + 1, tokens(100), "the activations to train on that"),
        (tokens()[:700], tokens(100), "the activations to train on that"),
        (tokens(), tokens(100) * 2, "the activations that are held out that"),
    ],
)
def test_a_run_does_not_go_on_with_other_tokens_than_it_began_with(
    tmp_path: Path, training: Tokens, held_out: Tokens, what: str
) -> None:
    plan = Plan(checkpoint_every=20)
    with pytest.raises(Stopped):
        run(new_sae(), tokens(), tokens(100), CONFIG, tmp_path, about={}, plan=plan, progress=stopped_at(30))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=f"expected {what} the run began with, got"):
        run(new_sae(), training, held_out, CONFIG, tmp_path, about={}, plan=plan, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_held_out_tokens_that_change_between_birth_and_end_are_told(tmp_path: Path) -> None:
    class Growing:
        passes = 0

        def __iter__(self) -> Iterator[torch.Tensor]:
            self.passes += 1
            return iter((tokens(100) * self.passes).split(50))

    with pytest.raises(InputError, match="expected a source that yields the same tokens in every pass"):
        run(new_sae(), tokens(), Growing(), CONFIG, tmp_path, about={})
