"""Statistics of shards, merged: what one process says of the whole."""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from autopsae.activations.shards import ShardWriter
from autopsae.activations.store import open_layers
from autopsae.arrays import InputError
from autopsae.cli.verbs import run
from autopsae.diagnosis.merge import join_parts, merge_parts
from autopsae.diagnosis.part_file import open_part
from autopsae.diagnosis.parts import collect_part
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.survey import survey
from autopsae.statistics.collect import collect

D_IN = 12
ASKED: dict[str, Any] = {"d_sae": 96, "k": 4}
ONE = 1e-7
"""By how much of its size a number may differ from that of a single process."""


def tokens_of(count: int, seed: int = 0) -> Tensor:
    """Tokens with a mean, in documents of 20 that are alike."""
    made = torch.Generator().manual_seed(seed)
    mean = 3 * torch.randn(D_IN, generator=torch.Generator().manual_seed(7))
    documents = torch.randn(-(-count // 20), D_IN, generator=made).repeat_interleave(20, dim=0)[:count]
    return (torch.randn(count, D_IN, generator=made) + documents) * torch.linspace(0.3, 2, D_IN) + mean


def write_store(folder: Path, *, shards: int, each: int, layers: Sequence[str] = ("hs1",), seed: int = 0) -> Path:
    """A folder as `harvest` writes it."""
    writer = ShardWriter(folder, request={"seed": seed}, shard_tokens=each)
    tokens = {layer: tokens_of(shards * each, seed + number) for number, layer in enumerate(layers)}
    for place in range(0, shards * each, each):
        labels = {"document": torch.arange(place, place + each) // 20}
        writer.add({name: x[place : place + each] for name, x in tokens.items()}, labels, inputs="")
    writer.finish()
    return folder


def shards_of(store: Path) -> list[Path]:
    return sorted(store.glob("shard-*"))


def make_parts(store: Path, folder: Path, **settings: Any) -> list[Path]:
    """A part of each shard."""
    parts = [folder / f"part-{number:02d}.safetensors" for number in range(len(shards_of(store)))]
    for shard, part in zip(shards_of(store), parts, strict=True):
        collect_part([shard], part, **settings)
    return parts


def furthest(one: Any, other: Any) -> float:
    """By how much of their size two results differ; all but floats must be the same."""
    if isinstance(one, float) and isinstance(other, float):
        return 0.0 if one == other else abs(one - other) / max(abs(one), abs(other))
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max((furthest(one[name], other[name]) for name in one), default=0.0)
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        return max((furthest(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    assert one == other
    return 0.0


def check_same(merged: Diagnosis, single: Diagnosis) -> None:
    assert furthest(merged.to_dict(), single.to_dict()) < ONE
    assert torch.equal(merged.landscape, single.landscape)  # tokens of the sample
    assert merged.prescription.remedy.name == single.prescription.remedy.name
    torch.testing.assert_close(merged.prescription.b_dec, single.prescription.b_dec, rtol=0, atol=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "s", shards=64, each=100)


@pytest.fixture(scope="module")
def parts(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_parts(store, tmp_path_factory.mktemp("parts"))


def test_64_shuffled_parts_of_a_store_are_diagnosed_as_the_single_process_diagnoses_it(
    store: Path, parts: list[Path]
) -> None:
    [single] = survey(open_layers(store), exact=False, **ASKED)
    for seed in (0, 1):
        shuffled = Random(seed).sample(parts, len(parts))
        [merged] = merge_parts(shuffled, **ASKED)
        check_same(merged, single)


def test_the_order_of_the_parts_changes_no_bit(parts: list[Path]) -> None:
    one, other = (merge_parts(Random(seed).sample(parts, len(parts)), **ASKED) for seed in (2, 3))
    assert one.to_dict() == other.to_dict()


@pytest.mark.parametrize("wide", [D_IN - 1, D_IN])
def test_merged_statistics_and_sample_are_those_of_one_pass_also_of_a_wide_layer(
    tmp_path: Path, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("autopsae.diagnosis.parts"), "WIDE", wide)
    store = write_store(tmp_path / "s", shards=7, each=90)
    parts = [open_part(path) for path in make_parts(store, tmp_path, sample_tokens=40)]
    merged = parts[0].read("hs1").statistics
    for part in parts[1:]:
        merged = merged.merge(part.read("hs1").statistics)
    ours = merged.statistics()
    whole = collect(open_layers(store)["hs1"], sample_tokens=40, wide=wide)
    assert torch.equal(ours.sample, whole.sample)
    assert ours.covariance_tokens == whole.covariance_tokens == (4 * D_IN if wide < D_IN else 630)
    for name in ("raw", "normed"):
        for sums in ("mean", "scatter", "third", "fourth"):
            mine, theirs = (getattr(getattr(of, name), sums) for of in (ours, whole))
            assert float((mine - theirs).norm()) <= ONE * float(theirs.norm())
    assert torch.equal(ours.norms.counts, whole.norms.counts)
    assert ours.rows.repeats() == whole.rows.repeats()


def test_parts_are_merged_by_stages(parts: list[Path], tmp_path: Path) -> None:
    joined = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    join_parts(parts[::2], joined[0])
    join_parts(parts[1::2], joined[1])
    [once], [twice] = merge_parts(parts, **ASKED), merge_parts(joined, **ASKED)
    check_same(twice, once)


def test_what_comes_twice_or_is_missing_is_refused_by_name(parts: list[Path], store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"part-03\.safetensors: expected each part once, got this one twice"):
        merge_parts([*parts, parts[3]], **ASKED)
    again = tmp_path / "again.safetensors"
    collect_part([shards_of(store)[3]], again)
    with pytest.raises(InputError) as twice:
        merge_parts([*parts, again], **ASKED)
    assert "again.safetensors: expected tokens that no other part covers, got those of shard-00003" in str(
        twice.value
    )
    assert "part-03.safetensors covers too; leave one of the two out" in str(twice.value)
    with pytest.raises(InputError, match=r"expected all 64 shards of the store, but no part covers shard-00011"):
        merge_parts([part for part in parts if part.stem != "part-11"], **ASKED)
    with pytest.raises(InputError, match="expected at least one part, got none"):
        merge_parts([], **ASKED)


def test_a_part_of_something_else_is_refused_by_name(parts: list[Path], tmp_path: Path) -> None:
    other = write_store(tmp_path / "layers", shards=2, each=100, layers=("hs1", "hs2"))
    of_layer, of_store, of_seed, of_sample = (tmp_path / f"{name}.safetensors" for name in ("l", "o", "s", "n"))
    collect_part([shards_of(other)[0]], of_layer, layers=["2"])
    collect_part([shards_of(other)[0]], of_store, layers=["hs1"])
    collect_part([shards_of(other)[1]], of_seed, layers=["hs1"], seed=1)
    collect_part([shards_of(other)[1]], of_sample, layers=["hs1"], sample_tokens=100)
    for part, said in (
        (of_layer, "l.safetensors: expected the layers hs1 as part-00.safetensors has, got hs2"),
        (
            of_store,
            "o.safetensors: expected a part of a store as .*part-00.safetensors is, got one of another store",
        ),
        (of_seed, "s.safetensors: expected the seed 0 as part-00.safetensors has, got 1"),
        (of_sample, "n.safetensors: expected a sample of 4,096 tokens as .* has, got 100 tokens"),
    ):
        with pytest.raises(InputError, match=said):
            merge_parts([*parts, part], **ASKED)


def write_files(folder: Path, tokens: Tensor, each: int) -> list[Path]:
    """Sequences of 20 tokens in files without an index."""
    folder.mkdir()
    files = []
    for number, x in enumerate(tokens.split(each)):
        files.append(folder / f"acts-shard-{number}.npy")
        np.save(files[-1], x.view(-1, 20, D_IN).numpy())
    return files


def test_files_whose_place_is_told_are_one_stream(tmp_path: Path) -> None:
    files = write_files(tmp_path / "f", tokens_of(2400), 400)
    parts = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for number, part in enumerate(parts):
        collect_part(files[2 * number : 2 * number + 2], part, start=800 * number)
    [single] = survey(open_layers(tmp_path / "f"), exact=False, **ASKED)
    [merged] = merge_parts(parts[::-1], **ASKED)
    assert merged.layer == "acts"
    check_same(merged, single)
    with pytest.raises(InputError, match=r"none covers 800 to 1,599, which lie before those of acts-shard-4.npy"):
        merge_parts([parts[0], parts[2]], **ASKED)
    collect_part(files[2:3], tmp_path / "late.safetensors", start=900)
    with pytest.raises(InputError, match=r"late.safetensors: expected tokens that no other part covers"):
        merge_parts([*parts, tmp_path / "late.safetensors"], **ASKED)


def test_the_sample_of_files_without_a_place_depends_on_the_files_alone(tmp_path: Path) -> None:
    tokens = tokens_of(2400)
    files = write_files(tmp_path / "f", tokens, 400)
    by_one, by_two = tmp_path / "one", tmp_path / "two"
    for number, file in enumerate(files):
        collect_part([file], by_one / f"{number}.safetensors", sample_tokens=100)
    for number in (0, 1, 2):  # in another order, so with other places while they are parts
        collect_part([files[5 - number], files[number]], by_two / f"{number}.safetensors", sample_tokens=100)
    one, two = (merge_parts(sorted(folder.iterdir()), **ASKED)["acts"] for folder in (by_one, by_two))
    check_same(two, one)
    whole = survey(open_layers(tmp_path / "f"), exact=False, sample_tokens=100, **ASKED)["acts"]
    assert furthest(one.severity.gamma, whole.severity.gamma) < ONE
    assert furthest(one.severity.effective_rank, whole.severity.effective_rank) < ONE
    assert one.tokens == whole.tokens == 2400
    assert not torch.equal(one.landscape, whole.landscape)  # another sample
    collect_part([files[2]], tmp_path / "again.safetensors", sample_tokens=100)
    with pytest.raises(InputError, match=r"again.safetensors: expected tokens that no other part covers"):
        merge_parts([*by_one.iterdir(), tmp_path / "again.safetensors"], **ASKED)


def test_shards_that_do_not_belong_together_are_refused(store: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((50, D_IN), np.float32))
    out = tmp_path / "out.safetensors"
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([shards_of(store)[0], tmp_path / "a.npy"], {}, "a.npy: expected a shard of .* as the others, got another"),
        (
            [shards_of(store)[0]],
            {"start": 5},
            "start: expected none for a store, whose index.json tells the places",
        ),
        ([shards_of(store)[0], store], {}, "shard-00000.safetensors: expected tokens that are given once"),
        ([tmp_path / "a.npy"] * 2, {}, "a.npy: expected tokens that are given once"),
        ([], {}, "expected at least one shard, got none"),
        ([tmp_path / "a.npy"], {"sample_tokens": 2}, "sample_tokens: expected"),
    ]
    for shards, settings, said in cases:
        with pytest.raises(InputError, match=said):
            collect_part(shards, out, **settings)
    assert not out.exists()


def test_a_shard_that_is_not_the_one_of_the_index_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", shards=2, each=50)
    first, second = shards_of(store)
    first.write_bytes(second.read_bytes())
    with pytest.raises(InputError, match="not the shard that was harvested"):
        collect_part([first], tmp_path / "p.safetensors")


def test_a_part_that_is_damaged_is_refused(store: Path, tmp_path: Path) -> None:
    part = tmp_path / "p.safetensors"
    collect_part([store], part)
    tensors = load_file(part)
    held = open_part(part)
    metadata = json.loads(part.read_bytes()[8 : 8 + int.from_bytes(part.read_bytes()[:8], "little")])[
        "__metadata__"
    ]
    save_file({**tensors, "0.raw.mean": tensors["0.raw.mean"] + 1}, part, metadata)
    with pytest.raises(InputError, match="layer 'hs1': expected what was saved, got other numbers"):
        merge_parts([part], **ASKED)
    save_file(tensors, part, {**metadata, "about": metadata["about"].replace('"seed": 0', '"seed": 1')})
    with pytest.raises(InputError, match="expected what was saved, got other words than the checksum says"):
        merge_parts([part], **ASKED)
    save_file(tensors, part)
    with pytest.raises(InputError, match="expected a part that `autopsae stats` wrote, got another file"):
        merge_parts([part], **ASKED)
    assert held.coverage.tokens == 6400


def test_the_verbs_write_what_diagnose_writes(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = shards_of(store)
    asked = ["--d-sae", "96", "--k", "4", "--json"]
    for number in (0, 1):
        words = ["stats", *map(str, shards[number::2]), "--out", str(tmp_path / f"{number}.safetensors")]
        assert run(words) == 0
    assert "3,200 tokens in 32 shards" in capsys.readouterr().out
    parts = [str(tmp_path / f"{number}.safetensors") for number in (1, 0)]
    assert run(["merge", *parts, *asked, str(tmp_path / "m.json"), "--prescriptions", str(tmp_path / "p")]) == 0
    assert run(["diagnose", str(store), *asked, str(tmp_path / "d.json")]) == 0
    merged, single = (json.loads((tmp_path / name).read_text()) for name in ("m.json", "d.json"))
    assert merged.pop("provenance")["command"] == "merge"
    del single["provenance"]
    assert furthest(merged, single) < ONE
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["hs1.json", "hs1.safetensors"]
    capsys.readouterr()
    assert run(["merge", *parts, "--out", str(tmp_path / "whole.safetensors")]) == 0
    assert "6,400 tokens in 64 shards" in capsys.readouterr().out
    for words, said in (
        (["merge", parts[0]], "expected all 64 shards of the store, but no part covers shard-00000.safetensors"),
        (["merge", *parts, "--out", parts[0]], "expected a new name, got that of a file that is read"),
        (["merge", *parts, "--out", "x.safetensors", "--json", "d.json"], "--out: expected without --json"),
        (
            ["stats", str(shards[0]), "--out", str(shards[0])],
            "expected a new name, got that of a file that is read",
        ),
        (["stats", str(shards[0]), "--out", "part.json"], "expected a name that ends in .safetensors"),
    ):
        assert run(words) == 2
        assert said in " ".join(capsys.readouterr().err.split())
