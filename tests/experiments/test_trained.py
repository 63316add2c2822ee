"""SAEs of real layers, trained once and measured for everything: on a small layer, through the whole harness."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from experiments.features.harvest import Documents
from experiments.survival.layers import DNA
from experiments.trained import arms, compare, fit, harvest, layers, plan, rows, run, stamps, windows
from experiments.trained.arms import ARMS
from experiments.trained.layers import Data
from experiments.trained.rows import Job, keep, read_rows

from autopsae import SAE, autopsy, fates
from autopsae.arrays import InputError
from autopsae.features import Annotations
from autopsae.features.token_table import TokenTable
from tests.experiments.toy_layer import TOY, write_layer

STEPS = 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A harvested toy layer; rows go to the same folder."""
    write_layer(tmp_path)
    monkeypatch.setitem(layers.LAYERS, "toy", TOY)
    monkeypatch.setattr(rows, "FOLDER", tmp_path)
    monkeypatch.setattr(fit, "BATCH", 64)
    monkeypatch.setattr(arms, "SILENT", 128)
    return tmp_path


def never() -> bool:
    return False


def job(arm: str, **more: Any) -> Job:
    return replace(Job(layer="toy", arm=arm, d_sae=24, seed=0, steps=STEPS), **more)


def test_each_sae_gets_its_rows_once_and_is_compared_with_a_baseline_of_four_times_its_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["run", str(folder), str(folder / "work"), "--layers", "toy", "--seeds", "0", "--steps", str(STEPS)]
    asked += ["--arms", "baseline,neurons"]
    monkeypatch.setattr("sys.argv", asked)
    monkeypatch.setattr(plan, "plan_training", lambda *_: SimpleNamespace(seconds_per_step=0.6))
    run.main()
    wanted = plan.jobs(layers=["toy"], arms=["baseline", "neurons"], seeds=[0], steps=STEPS)
    assert sorted(row["key"] for row in read_rows()) == sorted(one.key for one in wanted)
    assert {row["key"] for row in read_rows(rows.CONCEPTS)} == {one.key for one in wanted}
    [pair] = read_rows(rows.COMPARED)
    assert {*pair["gains"]} == {"baseline", "neurons"}
    large = next(row for row in read_rows(rows.CONCEPTS) if row["key"] == job("baseline", d_sae=96).key)
    assert pair["covered"] == large["covered"]
    # Two baselines; controls are not trained.
    assert "toy: 3 SAEs, 0.4 min of training; measuring comes on top" in capsys.readouterr().out
    before = (folder / rows.TRAINED).read_bytes()
    monkeypatch.setattr(run, "fit", lambda *_: pytest.fail("trained again"))
    run.main()
    assert (folder / rows.TRAINED).read_bytes() == before
    assert "0 SAEs left" in capsys.readouterr().out


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_born_and_trained_and_its_death_at_the_end_is_that_of_an_autopsy(
    folder: Path, arm: str
) -> None:
    data, work = Data.read(folder, "toy"), folder / "work"
    run.make(job(arm), data, work, never)
    [row] = read_rows()
    sae = SAE.load(work / "saes" / job(arm).file)
    found = autopsy(sae, data.test, documents=data.documents)
    assert row["end"]["dead"] == float(found.is_dead.double().mean())
    assert row["end"]["relu"] == float((found.max_pre <= 0).double().mean())
    assert row["end"]["topk"] == pytest.approx(row["end"]["dead"] - row["end"]["relu"])
    newborn = fit.newborn(job(arm), data, work)[0]
    assert row["born"] == fit.fate_row(fates(newborn, data.test))
    assert row["curve"]["step"][0] == 0
    assert row["curve"]["step"][-1] == STEPS
    assert {len(series) for series in row["curve"].values()} == {len(row["curve"]["step"])}
    if arm == "prescribed":
        assert row["remedy"] == fit.prescription(data, 24, work).remedy.name
    assert row["remedy"] == ("median" if ARMS[arm].start == "median" else row["remedy"])


def test_a_training_that_was_stopped_goes_on_to_the_same_sae_and_curve(folder: Path) -> None:
    data = Data.read(folder, "toy")
    whole, course = fit.fit(job("auxk"), data, folder / "whole", never)
    calls = iter([False] * 7 + [True] * 20)
    with pytest.raises(fit.OutOfTime, match=rf"auxk 24 seed0 steps{STEPS} lr0\.001: saved after 8 of 20 steps"):
        fit.fit(job("auxk"), data, folder / "parts", lambda: next(calls))
    assert not (folder / "parts" / "saes" / f"{job('auxk').file}.json").exists()
    # As a kill leaves it that comes after the course and before the checkpoint.
    told = folder / "parts" / "saes" / f"{job('auxk').file}.course"
    kept = json.loads(told.read_text())
    for name, series in kept["curve"].items():
        series.append(19 if name == "step" else 0.5)
    told.write_text(json.dumps(kept))
    parts, again = fit.fit(job("auxk"), data, folder / "parts", never)
    assert torch.equal(whole.W_enc, parts.W_enc)
    assert torch.equal(whole.b_dec, parts.b_dec)
    assert again.curve == course.curve
    assert (again.born, again.remedy) == (course.born, course.remedy)
    assert not fit.checkpoint_of(job("auxk"), folder / "parts").exists()


def test_a_kill_between_training_and_measuring_trains_nothing_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data.read(folder, "toy")
    sae, course = fit.fit(job("centered"), data, folder / "work", never)
    monkeypatch.setattr(fit, "Training", lambda *_: pytest.fail("trained again"))
    kept, again = fit.fit(job("centered"), data, folder / "work", never)
    assert torch.equal(sae.W_dec, kept.W_dec)
    assert again == course


def test_rows_of_other_experiments_stay_in_the_file_and_a_key_has_one_row(folder: Path) -> None:
    (folder / rows.CONCEPTS).write_text(json.dumps({"d_sae": 2048, "rows": [{"layer": "smollm2"}]}))
    for covered in (1, 2):
        keep({"key": "a", "covered": covered}, rows.CONCEPTS)
    content = json.loads((folder / rows.CONCEPTS).read_text())
    assert content["rows"] == [{"layer": "smollm2"}]
    assert content["d_sae"] == 2048
    assert content["trained"] == [{"key": "a", "covered": 2}]


def test_the_table_has_the_baseline_at_four_times_the_size_and_the_sizes_of_table_1_on_two_layers() -> None:
    assert plan.sizes_of("antiberty", "baseline") == [2048, 8192]
    assert plan.sizes_of("antiberty", "prescribed") == [2048]
    assert plan.sizes_of("unirep", "prescribed") == [2048, 512, 8192]
    assert plan.sizes_of("unirep", "auxk") == [2048]
    assert sum(bool(layer.sizes) for layer in layers.LAYERS.values()) == 2
    assert (layers.LAYERS["spliceai"].d_sae, layers.LAYERS["spliceai"].k) == (256, 8)
    asked = plan.jobs(
        layers=["antiberty", "dinov2"],
        arms=["baseline", "ghost", "neurons"],
        seeds=[0, 1],
        steps=9,
        all_arms=["dinov2"],
    )
    assert [one.layer for one in asked if one.arm == "ghost"] == ["dinov2", "dinov2"]
    assert [one.seed for one in asked if one.arm == "neurons"] == [0, 0]
    assert asked.index(next(one for one in asked if one.arm == "ghost")) > asked.index(
        next(one for one in asked if one.seed == 1 and one.layer == "antiberty")
    )
    assert len({one.key for one in asked}) == len(asked)
    assert job("baseline").key == "toy baseline 24 seed0 steps20 lr0.001"


def test_the_paper_s_silence_is_62_batches_and_jumprelu_aims_at_k() -> None:
    assert ARMS["auxk"].training(k=8, steps=100)["revival"].dead_after_tokens == 62 * 1024
    assert ARMS["jumprelu"].training(k=8, steps=100)["penalty"].l0 == 8
    assert ARMS["rate bias"].birth(k=8, d_sae=256, steps=100)["firing_rate"] == 8 / 256
    assert ARMS["resampling"].training(k=8, steps=100)["resampling"].until_step == 50


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1, 5, "more"),
        (0, 5, "within a tenth"),
        (-10, 5, "within a tenth"),
        (-10, -1, "within a tenth"),
        (-11, 5, "open"),
        (-11, 0, "open"),
        (-20, -1, "fewer"),
    ],
)
def test_a_verdict_is_told_by_the_interval_over_documents(low: int, high: int, said: str) -> None:
    assert compare.verdict({"more_covered_by_documents": [low, high]}, 100) == said


def test_a_token_is_covered_by_the_last_place_that_is_not_after_its_start() -> None:
    starts = np.array([0, 2, 7, 0])
    table = TokenTable(documents=np.array([0, 0, 0, 1]), starts=starts, ends=starts + 1, texts=("a",) * 4)
    owners, places = np.array([0, 0, 1]), np.array([1, 5, 3])
    assert harvest._cover(owners, places, table).tolist() == [0, 0, 1, 2]


def test_a_stretch_of_dna_has_the_parts_of_features_that_lie_in_it_their_edges_and_its_bases() -> None:
    first, end = 5000, 5000 + DNA
    genes = ["A" * 20_000, "C" * 20_000]
    spans = Annotations.of([(0, first + 10, end + 50, "exon"), (1, 0, 20_000, "CDS")], domains=["exon"])
    made = windows.label(spans, [(0, first), (1, first + 1)], genes)
    rows = {concept: [row[:3] for row in made.rows() if row[3] == concept] for concept in made.concepts}
    assert rows["exon"] == [(0, 10, DNA)]
    assert rows["exon edge"] == [(0, 8, 12)]  # the other edge is outside
    assert rows["CDS"] == [(1, 0, DNA)]
    assert len(rows["A"]) == len(rows["CC"]) + 1 == DNA
    assert made.domains == {"exon", "exon edge"}


def test_a_stamp_covers_the_patches_that_its_picture_shows(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    nature, birds = (
        tmp_path / "usr/share/backgrounds/mate/nature",
        tmp_path / "usr/share/tuxpaint/stamps/animals/birds",
    )
    nature.mkdir(parents=True)
    birds.mkdir(parents=True)
    image.new("RGB", (300, 300), "green").save(nature / "a.jpg")
    for name in "abcd":
        image.new("RGBA", (50, 40), (255, 0, 0, 255)).save(birds / f"{name}.png")
    made: Documents = stamps.stamps(tmp_path)
    assert (len(made.train), len(made.test)) == (4, 2)
    assert {*made.annotations.concepts} == {"stamp", "animals", "animals/birds"}
    assert json.loads(stamps.stamp_classes(tmp_path)) == {"animals": [0, 1]}
    red = np.stack(
        [(picture[:, :, 0] > 200).reshape(16, 14, 16, 14).mean(axis=(1, 3)) >= 0.5 for picture in made.test]
    )
    of_stamp = [row for row in made.annotations.rows() if row[3] == "stamp"]
    assert sum(end - start for _, start, end, _ in of_stamp) == red.sum()


def test_what_is_asked_for_must_be_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"layers: expected some of unirep64, .*, got 'esm3'"):
        layers.layer_of("esm3")
    with pytest.raises(InputError, match=r"arms: expected some of baseline, .* random rows, got 'centred'"):
        arms.check_arms(["baseline", "centred"])
    with pytest.raises(
        InputError, match=r"expected unirep-train\.npy; run python -m experiments\.trained\.harvest"
    ):
        Data.read(folder, "unirep")
    monkeypatch.setattr("sys.argv", ["run", str(folder), str(folder), "--minutes", "151"])
    with pytest.raises(InputError, match="--minutes: expected more than 0 and at most 150, got 151"):
        run.main()
