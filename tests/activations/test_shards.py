"""Laws of the shard writer: what is read is what was added, and no interruption can break that."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import autopsae
from autopsae.activations.index import FORMAT, digest, header_digest
from autopsae.activations.shards import HarvestInterrupted, ShardWriter
from autopsae.activations.store import open_layers
from autopsae.arrays import InputError
from autopsae.saved import checksum
from tests import processes

REQUEST = {"model": "tiny", "context": 4}
SOURCES = str(Path(autopsae.__file__).parents[1])


def batch(number: int, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Batch `number` of a stream: 5 + number tokens of two layers, and their labels."""
    generator = torch.Generator().manual_seed(number)
    tokens = 5 + number
    layers = {
        "wide": torch.randn(tokens, 3, generator=generator).to(dtype),
        "narrow": torch.randn(tokens, 2, generator=generator).to(dtype),
    }
    return layers, {"document": torch.full((tokens,), number), "position": torch.arange(tokens)}


def write(folder: Path, batches: int = 6, shard_tokens: int = 12) -> None:
    """Feed the stream from where the folder stands to its end, as harvest does."""
    writer = ShardWriter(folder, request=REQUEST, shard_tokens=shard_tokens)
    if not writer.complete:
        for number in range(writer.batches_done, batches):
            writer.add(*batch(number))
        writer.finish()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def index(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "index.json").read_text())
    return read


@pytest.fixture
def unbroken(tmp_path: Path) -> Path:
    write(tmp_path / "unbroken")
    return tmp_path / "unbroken"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_is_read_is_what_was_added_in_order(tmp_path: Path, dtype: torch.dtype) -> None:
    writer = ShardWriter(tmp_path, request={}, shard_tokens=7)
    for number in range(4):
        writer.add(*batch(number, dtype))
    writer.finish()
    layers = open_layers(tmp_path)
    assert set(layers) == {"wide", "narrow"}
    for name, layer in layers.items():
        added = torch.cat([batch(number, dtype)[0][name] for number in range(4)])
        assert layer.dtype == dtype
        assert torch.equal(torch.cat(list(layer)), added)


def test_labels_are_stored_beside_each_token_and_are_no_layers(unbroken: Path) -> None:
    found: dict[str, list[Tensor]] = {"token.document": [], "token.position": []}
    for shard in index(unbroken)["shards"]:
        with safe_open(unbroken / shard["file"], framework="pt") as file:
            for name, parts in found.items():
                parts.append(file.get_tensor(name))
    expected = [batch(number)[1] for number in range(6)]
    assert torch.equal(torch.cat(found["token.document"]), torch.cat([part["document"] for part in expected]))
    assert torch.equal(torch.cat(found["token.position"]), torch.cat([part["position"] for part in expected]))
    assert found["token.document"][0].dtype == torch.int64
    assert not [name for name in open_layers(unbroken) if name.startswith("token.")]


def test_every_tensor_starts_at_a_multiple_of_its_element_size(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, request={})
    writer.add(*batch(0, torch.float16))  # 5 x 3 and 5 x 2 half-precision values: 30 and 20 bytes
    writer.finish()
    raw = (tmp_path / "shard-00000.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    sizes = {"I64": 8, "F16": 2}
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    sums = json.loads(header.pop("__metadata__")["sha256"])
    assert sums.keys() == header.keys()
    for name, entry in header.items():
        begin, end = (8 + length + place for place in entry["data_offsets"])
        assert sha256(raw[begin:end]).hexdigest() == sums[name]
        assert entry["data_offsets"][0] % sizes[entry["dtype"]] == 0


def test_index_names_every_shard_and_shards_end_between_batches(unbroken: Path) -> None:
    # Batches of 5, 6, .. 10 tokens in shards of at least 12: 5 + 6 + 7, 8 + 9, 10.
    held = index(unbroken)
    assert held.pop("content_sha256") == checksum(held)
    assert held == {
        "inputs": None,
        "format": FORMAT,
        "version": 2,
        "layers": {
            "wide": {"d_in": 3, "dtype": "float32"},
            "narrow": {"d_in": 2, "dtype": "float32"},
        },
        "shards": [
            {
                "file": name,
                "tokens": tokens,
                "digest": digest(unbroken / name),
                "header": header_digest(unbroken / name),
            }
            for name, tokens in (
                ("shard-00000.safetensors", 18),
                ("shard-00001.safetensors", 17),
                ("shard-00002.safetensors", 10),
            )
        ],
        "tokens": 45,
        "batches_done": 6,
        "complete": True,
        "request": REQUEST,
    }
    assert set(contents(unbroken)) == {"index.json", *(f"shard-0000{n}.safetensors" for n in range(3))}


def test_counts_tell_safe_batches_and_all_tokens(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, request=REQUEST, shard_tokens=12)
    writer.add(*batch(0))
    assert (writer.batches_done, writer.tokens, writer.complete) == (0, 5, False)
    writer.add(*batch(1))
    writer.add(*batch(2))
    assert (writer.batches_done, writer.tokens, writer.complete) == (3, 18, False)
    writer.finish()
    assert writer.complete


def test_batches_without_tokens_count_as_done(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, request={})
    layers, labels = batch(0)
    nothing = {name: tensor[:0] for name, tensor in layers.items()}
    writer.add(nothing, {name: tensor[:0] for name, tensor in labels.items()})
    writer.add(layers, labels)
    writer.finish()
    assert (index(tmp_path)["batches_done"], index(tmp_path)["tokens"]) == (2, 5)
    assert torch.equal(torch.cat(list(open_layers(tmp_path)["wide"])), layers["wide"])


def test_a_complete_harvest_is_left_as_it_is(unbroken: Path) -> None:
    before = contents(unbroken)
    assert ShardWriter(unbroken, request=REQUEST).complete
    assert contents(unbroken) == before


def test_what_a_dead_run_left_is_removed_before_anything_is_added(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, request=REQUEST, shard_tokens=5)
    writer.add(*batch(0))
    safe = contents(tmp_path)
    partials = (f".shard-00001.safetensors.{'0' * 32}.partial", f".index.json.{'f' * 32}.partial")
    for orphan in ("shard-00001.safetensors", *partials):
        (tmp_path / orphan).write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    ShardWriter(tmp_path, request=REQUEST)
    assert contents(tmp_path) == safe | {"notes.txt": b"mine"}


KILLED_EVERYWHERE = """
import os, sys
from pathlib import Path
from tests.activations.test_shards import InputError, contents, open_layers, torch, write

EVENTS = {"open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "tempfile.mkstemp"}
root = Path(sys.argv[1])
write(root / "whole")
whole = torch.cat(list(open_layers(root / "whole")["wide"]))

def dies_before_event(number, folder):
    child = os.fork()
    if child == 0:
        seen = 0
        def hook(event, args):
            nonlocal seen
            if event in EVENTS:
                seen += 1
                if seen > number:
                    os._exit(9)  # nothing is cleaned up, as after SIGKILL
        sys.addaudithook(hook)
        write(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

stage = 0
while dies_before_event(stage, folder := root / str(stage)):
    try:
        assert torch.equal(torch.cat(list(open_layers(folder)["wide"])), whole), stage
    except InputError as error:
        expected = ("is not finished", "found none", "no such file")
        assert any(words in str(error) for words in expected), (stage, error)
    # It dies once more, while it resumes, before it is let through.
    dies_before_event(stage % 7, folder)
    write(folder)
    assert contents(folder) == contents(root / "whole"), stage
    stage += 1
print(stage)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_killed_at_any_file_operation_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    ran = processes.run(processes.code, KILLED_EVERYWHERE, tmp_path)
    assert ran.returncode == 0, ran.stderr
    # Seven files (index, then three shards with the index after each), several operations for each.
    assert int(ran.stdout) > 20


def _failing(number: int, error: BaseException) -> Callable[[int], None]:
    """An os.fsync whose call `number` fails."""
    calls = iter(range(1000))

    def fsync(_handle: int) -> None:
        if next(calls) == number:
            raise error

    return fsync


@pytest.mark.parametrize("file", range(7))
def test_full_disk_keeps_what_is_safe_and_the_next_run_resumes(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", _failing(file, full))
    # The index at the start, then each shard followed by the index that names it.
    safe = [0, 0, 0, 18, 18, 35, 35][file]
    with pytest.raises(HarvestInterrupted, match=rf"disk is full .* {safe} tokens are safe; free some space"):
        write(tmp_path / "broken")
    assert not [name for name in contents(tmp_path / "broken") if name.endswith(".partial")]
    monkeypatch.undo()
    write(tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(unbroken)


@pytest.mark.parametrize("file", range(7))
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "I/O error")], ids=["ctrl-c", "io"])
def test_other_interruptions_are_told_and_leave_nothing_half_written(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, file: int, error: BaseException
) -> None:
    monkeypatch.setattr(os, "fsync", _failing(file, error))
    with pytest.raises(type(error)) as raised:
        write(tmp_path / "broken")
    assert error in (raised.value, raised.value.__cause__)  # an error of the system gets the name of the file
    assert not [name for name in contents(tmp_path / "broken") if name.endswith(".partial")]
    monkeypatch.undo()
    write(tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(unbroken)


REAL_FULL_DISK = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_shards import HarvestInterrupted, ShardWriter, contents, index, torch

def write(folder):
    writer = ShardWriter(folder, request={{}}, shard_tokens=100)
    for number in range(writer.batches_done, 10):
        layer = torch.full((100, 50), float(number))  # 20,000 bytes and 800 of labels in each shard
        writer.add({{"layer": layer}}, {{"document": torch.full((100,), number)}})
    writer.finish()

disk = Path({disk!r})
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=True)
try:
    write(disk / "harvest")
except HarvestInterrupted as error:
    safe = index(disk / "harvest")["tokens"]
    assert 0 < safe < 1000 and f"{{safe}} tokens are safe" in str(error), error
    assert not [name for name in contents(disk / "harvest") if name.endswith(".partial")]
else:
    raise AssertionError("the disk was not full")
subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
write(disk / "harvest")
write(Path({whole!r}))
assert contents(disk / "harvest") == contents(Path({whole!r}))
"""


def test_a_disk_that_is_really_full_is_reported_and_resumed_with_more_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # A mount namespace of its own: nothing is mounted for anyone else, and it ends with the process.
    own = ["unshare", "--mount", "--map-root-user"]
    trial = [*own, "mount", "-t", "tmpfs", "tmpfs", str(disk)]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip("a private tmpfs cannot be mounted here")
    tests = str(Path(__file__).parent)
    script = REAL_FULL_DISK.format(tests=tests, disk=str(disk), whole=str(tmp_path / "whole"))
    ran = subprocess.run(
        [*own, sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_another_request_is_refused_and_told_apart(unbroken: Path) -> None:
    before = contents(unbroken)
    with pytest.raises(InputError, match=r"another request \(context: 4 there, 64 asked\); ask for the same"):
        ShardWriter(unbroken, request=REQUEST | {"context": 64})
    with pytest.raises(InputError, match=r"context: 4 there, 'nothing' asked; seed: 'nothing' there, None asked"):
        ShardWriter(unbroken, request={"model": "tiny", "seed": None})
    assert contents(unbroken) == before


def test_a_harvest_without_a_shard_gives_way_to_another_request(tmp_path: Path) -> None:
    ShardWriter(tmp_path, request=REQUEST)
    ShardWriter(tmp_path, request={"model": "other"})
    assert index(tmp_path)["request"] == {"model": "other"}


def test_requests_are_compared_as_json(unbroken: Path) -> None:
    assert ShardWriter(unbroken, request={"context": 4, "model": "tiny"}).complete
    with pytest.raises(InputError, match="request: expected what JSON can hold"):
        ShardWriter(unbroken, request={"dtype": torch.float32})


def test_a_folder_with_other_files_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "shard-00000.safetensors").write_bytes(b"someone's")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        InputError, match=r"got 2 other files \(notes.txt, shard-00000.safetensors\); pass an empty"
    ):
        ShardWriter(tmp_path, request={})
    assert contents(tmp_path) == {"shard-00000.safetensors": b"someone's", "notes.txt": b"mine"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="expected a folder to harvest into, got a file"):
        ShardWriter(tmp_path / "file", request={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected an index of autopsae-activations, could not"),
        ("[]", "expected a JSON object, got \\[\\]"),
        ('{"format": "other", "version": 1, "shards": []}', "format 'autopsae-activations', got 'other'"),
        (f'{{"format": "{FORMAT}", "version": 3, "shards": []}}', "expected version 1 or 2 .* got 3; update"),
        (f'{{"format": "{FORMAT}", "version": 2, "shards": []}}', r"no layers, tokens, .* harvest it again"),
    ],
)
def test_an_index_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InputError, match=message):
        ShardWriter(tmp_path, request={})
    assert (tmp_path / "index.json").read_text() == text


def test_a_shard_that_is_gone_is_named(unbroken: Path) -> None:
    (unbroken / "shard-00001.safetensors").unlink()
    with pytest.raises(InputError, match=r"the index names shard-00001.safetensors, which is gone"):
        ShardWriter(unbroken, request=REQUEST)


def _changed(**changes: Any) -> dict[str, Tensor]:
    return batch(0)[0] | changes


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (_changed(wide=torch.zeros(5, 4)), "as in the batches before .*'d_in': 3.* got .*'d_in': 4"),
        (_changed(wide=torch.zeros(5, 3).half()), "as in the batches before .* got .*'float16'"),
        (_changed(third=torch.zeros(5, 3)), "as in the batches before .* got .*'third'"),
        ({"wide": torch.zeros(5, 3)}, "as in the batches before .*'narrow'"),
        (_changed(wide=torch.zeros(4, 3)), "as many tokens in every layer and label .*'wide': 4, 'narrow': 5"),
        (_changed(wide=torch.zeros(5)), r"layer 'wide': expected .* matrix \[tokens, d_in\], got shape \(5,\)"),
        (_changed(wide=torch.zeros(5, 3).int()), r"layer 'wide': .* of torch.int32"),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_layers_cannot_change_between_batches(
    tmp_path: Path, layers: dict[str, Tensor], message: str, resumed: bool
) -> None:
    writer = ShardWriter(tmp_path, request={}, shard_tokens=1 if resumed else 100)
    writer.add(*batch(0))
    if resumed:
        writer = ShardWriter(tmp_path, request={})
    with pytest.raises(InputError, match=message):
        writer.add(layers, batch(0)[1])


def test_labels_cannot_change_between_batches(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, request={})
    writer.add(*batch(0))
    with pytest.raises(InputError, match=r"expected .*'token.position'.* as in the batch before, got"):
        writer.add(batch(1)[0], {"document": batch(1)[1]["document"]})


def test_shard_tokens_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shard_tokens: expected a positive number of tokens, got 0"):
        ShardWriter(tmp_path, request={}, shard_tokens=0)


def test_views_are_written_like_copies(tmp_path: Path) -> None:
    matrix = torch.arange(40.0).view(5, 8)
    writer = ShardWriter(tmp_path, request={})
    layers = {"strided": matrix[:1, ::2], "single": matrix[:1, 3::8], "transposed": matrix.T[:1]}
    writer.add(layers, {"document": torch.zeros(1, dtype=torch.int32)})
    writer.finish()
    for name, layer in open_layers(tmp_path).items():
        assert torch.equal(next(iter(layer)), layers[name])
