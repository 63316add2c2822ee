"""Verbs on stores: what they read at a URL, and write there, is what they read and write on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from autopsae import mirror, urls
from autopsae.activations.shards import ShardWriter
from autopsae.cli.verbs import run
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from tests.stores import KEYS, Fault, Server, fill_memory, s3_server

ASKED = ["--d-sae", "48", "--k", "4"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of one layer, in `store`."""
    monkeypatch.setattr(urls, "PAUSE", 0.0)
    fsspec.filesystem("memory").store.clear()
    mirror._folder_of.cache_clear()
    generator = torch.Generator().manual_seed(3)
    writer = ShardWriter(tmp_path / "store", request={}, shard_tokens=400)
    for number in range(6):
        tokens = torch.randn(200, 16, generator=generator) + 1.0
        writer.add({"hs3": tokens}, {"document": torch.arange(200) // 20 + 10 * number})
    writer.finish()
    yield tmp_path
    mirror._folder().close()
    mirror._folder_of.cache_clear()


def results(file: str | Path) -> Any:
    """What a JSON file of results says, without what wrote it."""
    held = json.loads(fsspec.open(str(file)).open().read())
    return {name: value for name, value in held.items() if name not in ("provenance", "content_sha256")}


def near_and_far(folder: Path, url: str, *words: str) -> None:
    """A command with the places NEAR of this machine and of the URL in its words."""
    for place in (str(folder), url):
        assert run([word.replace("NEAR", place) for word in words]) == 0, (place, words)


def test_verbs_on_a_bucket_give_what_they_give_on_a_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as address:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        url = "s3://bucket/inner"
        system = fsspec.filesystem("s3", use_listings_cache=False)
        for file in (folder / "store").iterdir():
            system.pipe(f"bucket/inner/store/{file.name}", file.read_bytes())
        outputs = ["--json", "NEAR/d.json", "--prescriptions", "NEAR/p", "--report", "NEAR/d.html"]
        near_and_far(folder, url, "diagnose", "NEAR/store", *ASKED, *outputs)
        assert results(f"{url}/d.json") == results(folder / "d.json")
        assert results(f"{url}/p/hs3.json") == results(folder / "p/hs3.json")
        assert system.cat_file("bucket/inner/d.html")[:15].lower() == b"<!doctype html>"
        shards = [f"NEAR/store/shard-{number:05d}.safetensors" for number in (1, 0)]
        near_and_far(folder, url, "stats", *shards, "--out", "NEAR/one.safetensors")
        near_and_far(folder, url, "stats", "NEAR/store/shard-00002.safetensors", "--out", "NEAR/two.safetensors")
        near_and_far(
            folder, url, "merge", "NEAR/one.safetensors", "NEAR/two.safetensors", *ASKED, "--json", "NEAR/m.json"
        )
        assert results(f"{url}/m.json") == results(folder / "m.json")


def test_a_training_reads_a_store_and_its_prescription_at_urls(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_memory(folder, "memory://all")
    fit = ["--d-sae", "48", "--k", "4", "--steps", "8", "--batch-tokens", "64", "--held-out", "100"]
    for place, out in ((str(folder), "near"), ("memory://all", "far")):
        assert run(["train", f"{place}/store", "--out", str(folder / out), *fit]) == 0
    ends = [(folder / out / "sae.safetensors").read_bytes() for out in ("near", "far")]
    assert ends[0] == ends[1]
    capsys.readouterr()
    assert run(["train", "memory://all/store", "--out", "s3://bucket/run", *fit]) == 2
    said = capsys.readouterr().err
    assert (
        "s3://bucket/run: expected a local folder, which can be locked, got a URL; name one on this machine" in said
    )


def test_an_autopsy_reads_its_source_and_writes_its_results_at_a_url(folder: Path) -> None:
    born(untouched(16), d_sae=48, sparsity=TopK(k=4), sample=torch.randn(64, 16)).save(folder / "sae")
    fill_memory(folder, "memory://all")
    words = ["NEAR/store", "--json", "NEAR/a.json", "--table", "NEAR/a.csv"]
    near_and_far(folder, "memory://all", "autopsy", str(folder / "sae"), *words)
    assert results("memory://all/a.json") == results(folder / "a.json")
    assert fsspec.filesystem("memory").cat_file("/all/a.csv") == (folder / "a.csv").read_bytes()


@pytest.mark.parametrize("how", ["500", "stall"])
def test_a_training_goes_on_when_its_source_answers_again(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOPSAE_TIMEOUT", "0.3")
    answers = 100
    left = [answers]

    def ask(name: str, _: str) -> None:
        left[0] -= 1
        if left[0] < 0 and name != "index.json":
            raise Fault(how)

    fit = ["--d-sae", "48", "--k", "4", "--steps", "60", "--batch-tokens", "64", "--held-out", "100"]
    fit += ["--checkpoint-every", "2"]
    with Server(folder / "store", ask) as server:
        assert run(["train", server.url, "--out", str(folder / "whole"), *fit]) == 0
        needed, left[0] = answers - left[0], answers
        # Each copy serves all passes, unless there is room for one shard alone.
        monkeypatch.setenv("AUTOPSAE_CACHE_GB", "0.00003")
        mirror._folder_of.cache_clear()
        assert run(["train", server.url, "--out", str(folder / "again"), *fit]) == 0
        needed = answers - left[0]
        left[0] = needed - 2
        capsys.readouterr()
        mirror._folder_of.cache_clear()
        assert run(["train", server.url, "--out", str(folder / "cut"), *fit]) == 2
        [said] = [line for line in capsys.readouterr().err.splitlines() if "expected the store to answer" in line]
        assert "tried 3 times and got" in said
        assert (folder / "cut" / "checkpoint.safetensors").is_file()
        left[0] = answers
        monkeypatch.setenv("AUTOPSAE_TIMEOUT", "30")
        mirror._folder_of.cache_clear()
        assert run(["train", server.url, "--out", str(folder / "cut"), "--resume", *fit]) == 0
    for out in ("again", "cut"):
        assert (folder / out / "sae.safetensors").read_bytes() == (folder / "whole/sae.safetensors").read_bytes()


def test_results_that_no_store_takes_are_known_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["diagnose", str(folder / "store"), *ASKED, "--json"]
    assert run([*words, "https://127.0.0.1:1/d.json"]) == 2
    assert "expected a store that is written to, got an address of the web" in capsys.readouterr().err
    spread = ["--on", "local:1", "--work", "s3://bucket/work"]
    assert run([*words[:-1], *spread]) == 2
    assert "expected a folder that can be locked, got a URL" in capsys.readouterr().err
