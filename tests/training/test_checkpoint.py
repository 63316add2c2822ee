"""A run that is broken off goes on as if it had not been: bit by bit, wherever it was killed."""

import json
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from autopsae.arrays import InputError
from autopsae.files import write_tensors
from autopsae.kernels.screen import Products
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.saved import tensors_checksum
from autopsae.training import checkpoint
from autopsae.training.bias import BIASES
from autopsae.training.checkpoint import load_checkpoint
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.objective import L1, L0Target
from autopsae.training.revival import AuxK, GhostGradients, Resampling
from autopsae.training.sources import Member
from autopsae.training.terms import terms
from tests import processes

D_IN, D_SAE = 12, 64
CONFIG = TrainConfig(steps=40, lr=3e-3, batch_tokens=100, warmup_steps=5, decay_steps=10, buffer_tokens=350)


def tokens() -> torch.Tensor:
    return torch.randn(1010, D_IN, generator=torch.Generator().manual_seed(5)) + 1.5


def new_sae(sparsity: Sparsity) -> SAE:
    drawn = torch.Generator().manual_seed(0)
    rate = 0.1 if isinstance(sparsity, JumpReLU) else None
    return born(untouched(D_IN), d_sae=D_SAE, sparsity=sparsity, sample=tokens(), generator=drawn, firing_rate=rate)


WAYS: dict[str, tuple[Sparsity, dict[str, Any]]] = {
    "topk": (TopK(k=4), {}),
    "batch topk": (BatchTopK(k=4), {"clip_norm": 1.0}),
    "relu": (ReLU(), {"penalty": L1(coefficient=0.3, warmup_steps=20)}),
    "jumprelu": (JumpReLU(), {"penalty": L0Target(l0=4.0)}),
    "auxk": (TopK(k=2), {"revival": AuxK(dead_after_tokens=300)}),
    "ghost gradients": (TopK(k=2), {"revival": GhostGradients(dead_after_tokens=300)}),
    "resampling": (TopK(k=2), {"resampling": Resampling(every_steps=7, dead_after_tokens=300)}),
    "rows of adam": (TopK(k=4), {"optimizer": "sparse_adam", "bias": BIASES["decoder"]}),
    "sign": (TopK(k=4), {"optimizer": "sign_sgd", "frozen": ("b_dec",)}),
    "a screen": (TopK(k=4), {"products": "bfloat16", "unit_decoder": False}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [1, 13, 39])
def test_a_resumed_run_ends_with_the_same_bits_and_records(tmp_path: Path, way: str, at: int) -> None:
    sparsity, settings = WAYS[way]
    config = replace(CONFIG, dead_after_tokens=500, **settings)
    unbroken, broken, resumed = (new_sae(sparsity) for _ in range(3))
    expected = list(Training([Member(sae=unbroken, config=config)], tokens()))
    first = Training([Member(sae=broken, config=config)], tokens())
    records = [first.advance() for _ in range(at)]
    first.save(tmp_path / "c.safetensors")
    second = Training([Member(sae=resumed, config=config)], tokens())
    second.load(tmp_path / "c.safetensors")
    assert second.step == at
    assert [*records, *second] == expected
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


PROGRAM = """
import sys
from pathlib import Path
from tests.training.test_checkpoint import CONFIG, new_sae, tokens
from autopsae.run.folder import Entry, Plan
from autopsae.run.observer import Observer
from autopsae.run.one import run
from autopsae.sae.sparsity import TopK
from autopsae.training.revival import AuxK
from autopsae.training.sources import Member
from autopsae.training.terms import terms
from tests import processes
from dataclasses import replace

config = replace(CONFIG, steps=int(sys.argv[2]), revival=AuxK(dead_after_tokens=2000))
def progress(records):
    print(records["one"].step, flush=True)
one = Entry(member=Member(sae=new_sae(TopK(k=4)), config=config, name="one"), about={})
run(one, tokens(), tokens()[:200], Path(sys.argv[1]),
    plan=Plan(checkpoint_every=3, evaluate_every=50), resume=True, observer=Observer(on_records=progress))
"""


@pytest.mark.parametrize(("kills", "steps"), [(6, 120), pytest.param(20, 400, marks=pytest.mark.long)])
def test_a_run_killed_at_random_steps_ends_with_the_same_bits(kills: int, steps: int, tmp_path: Path) -> None:
    chosen = sorted(random.Random(0).sample(range(5, steps - 5), kills))
    done = processes.run(processes.code, PROGRAM, tmp_path / "unbroken", steps)
    assert done.returncode == 0, done.stderr
    for step in chosen:
        with processes.running(processes.code, PROGRAM, tmp_path / "killed", steps) as running:
            for line in running.lines:
                if int(line) >= step:
                    running.process.kill()
                    break
        assert running.process.exitcode == -signal.SIGKILL
    done = processes.run(processes.code, PROGRAM, tmp_path / "killed", steps)
    assert done.returncode == 0, done.stderr
    for name in ("records.jsonl", "held_out.jsonl", "summary.json", "birth.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    weights = [load_file(tmp_path / run / "sae.safetensors") for run in ("killed", "unbroken")]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    program = PROGRAM.split("config = ")[0] + (
        "from autopsae.training.loop import Training\n"
        "from autopsae.training.sources import Member\n"
        "training = Training([Member(sae=new_sae(TopK(k=4)), config=CONFIG)], tokens())\n"
        "for _ in training:\n"
        "    for _ in range(1000):\n"
        "        training.save(sys.argv[1]); print(training.step, flush=True)\n"
    )
    path = tmp_path / "c.safetensors"
    chance = random.Random(1)
    for _ in range(5):
        with processes.running(processes.code, program, path) as running:
            running.lines.readline()
            running.process.join(chance.random() * 0.05)
            running.process.kill()
        resumed = Training([Member(sae=new_sae(TopK(k=4)), config=CONFIG)], tokens())
        resumed.load(path)
        assert resumed.step >= 1


def saved(tmp_path: Path) -> Path:
    training = Training([Member(sae=new_sae(TopK(k=4)), config=CONFIG)], tokens())
    training.advance()
    training.save(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


@pytest.mark.parametrize(
    ("sparsity", "change", "message"),
    [
        (TopK(k=4), {"lr": 1e-2}, r"expected the settings it was written under: lr 0\.003, got 0\.01"),
        (TopK(k=4), {"steps": 50}, r"steps 40, got 50"),
        (TopK(k=4), {"revival": AuxK()}, r"revival None, got AuxK\(coefficient=0\.03125"),
        (TopK(k=3), {}, r"expected a checkpoint of TopK\(k=3\), .* got one of TopK\(k=4\)"),
        (ReLU(), {}, r"expected a checkpoint of ReLU\(\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, sparsity: Sparsity, change: dict[str, Any], message: str
) -> None:
    training = Training([Member(sae=new_sae(sparsity), config=replace(CONFIG, **change))], tokens())
    with pytest.raises(InputError, match=message):
        training.load(saved(tmp_path))
    assert training.step == 0


@pytest.mark.parametrize("resampling", [None, Resampling(every_steps=2, until_step=6, dead_after_tokens=200)])
def test_without_a_decay_a_run_may_be_prolonged(tmp_path: Path, resampling: Resampling | None) -> None:
    short, long = (replace(CONFIG, decay_steps=0, steps=steps, resampling=resampling) for steps in (10, 20))
    broken, unbroken = new_sae(TopK(k=4)), new_sae(TopK(k=4))
    training = Training([Member(sae=broken, config=short)], tokens())
    list(training)
    training.save(tmp_path / "c.safetensors")
    prolonged = Training([Member(sae=broken, config=long)], tokens())
    prolonged.load(tmp_path / "c.safetensors")
    records = list(prolonged)
    assert records == list(Training([Member(sae=unbroken, config=long)], tokens()))[10:]


def test_a_run_whose_resampling_ends_with_it_may_not_be_prolonged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, decay_steps=0, steps=10, resampling=Resampling(every_steps=2, dead_after_tokens=200))
    path, training = tmp_path / "c.safetensors", Training([Member(sae=new_sae(TopK(k=4)), config=config)], tokens())
    training.save(path)
    longer = Training([Member(sae=new_sae(TopK(k=4)), config=replace(config, steps=20))], tokens())
    with pytest.raises(InputError, match="steps 10, got 20"):
        longer.load(path)
    # An earlier version said nothing of the steps, as its resampling did not end with the training.
    said = terms(training.members[0])
    said["settings"]["steps"] = "any"
    monkeypatch.setattr(checkpoint, "terms", lambda *_: said)
    training.save(path)
    monkeypatch.undo()
    longer.load(path)
    assert longer.step == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "foreign"])
def test_a_file_that_is_no_whole_checkpoint_is_refused_and_changes_nothing(tmp_path: Path, damage: str) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        new_sae(TopK(k=4)).save(tmp_path / "sae")
        path = tmp_path / "sae.safetensors"
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    sae = new_sae(TopK(k=4))
    training = Training([Member(sae=sae, config=CONFIG)], tokens())
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    with pytest.raises(InputError, match=r"expected a saved autopsae-checkpoint"):
        training.load(path)
    assert all(torch.equal(before[name], value) for name, value in sae.state_dict().items())


def refused(path: Path) -> str:
    training = Training([Member(sae=new_sae(TopK(k=4)), config=CONFIG)], tokens())
    with pytest.raises(InputError) as raised:
        training.load(path)
    assert training.step == 0
    return str(raised.value)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, header, 97), *range(header, len(whole), 499), len(whole) - 1]:
        if whole[place : place + 1] == b" ":
            continue  # what is between the words of JSON says nothing
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert "expected " in refused(path)


def header_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
    return about


def write_again(path: Path, tensors: dict[str, torch.Tensor] | None = None, **about: Any) -> None:
    """The checkpoint with other content, under a checksum that is right."""
    words = json.dumps({**header_of(path), **about}, sort_keys=True)
    tensors = tensors or load_file(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    write_tensors(path, tensors, {"about": words, "sha256": tensors_checksum(words, tensors)})


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"step": None}, ".step: expected a whole number from 0"),
        ({"step": True}, ".step: expected a whole number from 0"),
        ({"diverged": []}, ".diverged: expected an object with names, got []"),
        ({"diverged": {"x": "a"}}, "expected members 0 to 0, got ['x'] that ended"),
        ({"stopped": [1]}, "expected members 0 to 0, got ['1'] that ended"),
        ({"members": [1]}, ".members[0]: expected an object with names, got 1"),
        ({"scales": 3}, ".scales: expected a list, got 3"),
        ({"scales": []}, "expected members 0 to 0"),
        ({"scales": [0]}, ".scales[0]: expected a number over 0"),
        ({"places": []}, "expected members that share their tokens as before"),
        (
            {"places": [{"buffers": -1, "batches": 0, "read": None, "epoch": None}]},
            ".places[0].buffers: expected a whole number from 0",
        ),
        ({"stream_of_member": [1]}, "expected members that share their tokens as before ([1]"),
        ({"version": 1}, "expected a checkpoint of version 3, got 1; go on with the autopsae that wrote it"),
        ({"more": 1}, "expected only format, version"),
    ],
)
def test_a_checkpoint_that_says_what_cannot_be_is_refused(
    tmp_path: Path, about: dict[str, Any], message: str
) -> None:
    path = saved(tmp_path)
    write_again(path, **about)
    assert message in refused(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("place.0.generator", lambda t: t[:9], "place.0.generator: expected shape (5056,) of uint8, got (9,)"),
        ("place.0.generator", lambda t: t * 0 + 255, "expected the state of a random generator"),
        ("place.0.held", lambda t: t.new_full((2, D_IN), torch.nan), "place.0.held: expected finite values"),
        ("place.0.held", lambda t: t.new_zeros(2, 3), "place.0.held: expected shape (2, 12)"),
        ("sae.0.W_dec", lambda t: t.T.contiguous(), "sae.0.W_dec: expected shape (64, 12)"),
        ("sae.0.W_dec", lambda t: t.double(), "sae.0.W_dec: expected shape (64, 12) of float32"),
        ("state.moments.W_dec", lambda t: t[None], "state.moments.W_dec: expected shape (2, 1, 64, 12)"),
        ("state.since_fired", lambda t: t[:, :9].contiguous(), "state.since_fired: expected shape (1, 64)"),
        ("state.sum", None, "it lacks state.sum"),
        ("more", lambda t: torch.zeros(1), "but got also ['more']"),
    ],
)
def test_a_checkpoint_of_other_tensors_is_refused(tmp_path: Path, name: str, change: Any, message: str) -> None:
    path = saved(tmp_path)
    tensors = load_file(path)
    taken = tensors.pop(name, torch.zeros(1))
    write_again(path, tensors if change is None else {**tensors, name: change(taken)})
    assert message in refused(path)


def test_what_identifies_the_data_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert header_of(path)["data"] == {}
    write_again(path, data={"digest": "abc", "passes": [1, 2]})
    sae = new_sae(TopK(k=4))
    layouts = Training([Member(sae=sae, config=CONFIG)], tokens())._layouts
    state, _ = load_checkpoint(path, [Member(sae=sae, config=CONFIG)], [0], layouts)
    assert state.data == {"digest": "abc", "passes": [1, 2]}


def test_a_run_that_selected_in_bfloat16_is_not_resumed_as_an_exact_one(tmp_path: Path) -> None:
    path = saved(tmp_path)
    [member] = header_of(path)["members"]
    settings = {**member["settings"], "products": "'bfloat16'"}
    write_again(path, members=[{**member, "settings": settings}])
    assert "is_screened" in header_of(path)
    Training([Member(sae=new_sae(TopK(k=4)), config=CONFIG)], tokens()).load(path)  # a screen of now
    words = {name: value for name, value in header_of(path).items() if name != "is_screened"}
    text = json.dumps(words, sort_keys=True)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    write_tensors(path, tensors, {"about": text, "sha256": tensors_checksum(text, tensors)})
    assert "got one of an earlier version with inexact products in bfloat16" in refused(path)


def test_a_run_goes_on_behind_a_screen_or_without_one_as_it_began(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    ways: list[tuple[Products, Products]] = [("float32", "auto"), ("auto", "float32")]
    for began, then in ways:
        unbroken, broken, resumed = (new_sae(TopK(k=4)) for _ in range(3))
        config = replace(CONFIG, products=began)
        expected = list(Training([Member(sae=unbroken, config=config)], tokens()))
        first = Training([Member(sae=broken, config=config)], tokens())
        for _ in range(7):
            first.advance()
        first.save(path)
        second = Training([Member(sae=resumed, config=replace(config, products=then))], tokens())
        second.load(path)
        assert list(second)[-1] == expected[-1]
        assert all(torch.equal(resumed.state_dict()[name], w) for name, w in unbroken.state_dict().items())
