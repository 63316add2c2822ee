"""What a sweep is said to take of memory is what its steps take."""

import json
import os
import subprocess
import sys

import pytest
import torch

from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import JumpReLU, ReLU, Sparsity, TopK
from autopsae.training.config import TrainConfig
from autopsae.training.memory import bytes_needed, bytes_of
from autopsae.training.sources import Member

CASES = {
    "TopK behind a screen": "TopK(k=32), WIDE",
    "four members": "TopK(k=32), WIDE, members=4",
    "whole rows": "TopK(k=32), NARROW",
    "small members that see the same": "TopK(k=5), SMALL, members=8",
    "small members of different streams": "TopK(k=5), SMALL, members=8, seeds=8",
    "a large k": "TopK(k=400), WIDE",
    "large matrices, SignSGD": "TopK(k=8), TALL, optimizer='sign_sgd'",
    "large matrices, clipped gradients": "TopK(k=8), TALL, clip_norm=1.0",
    "nested": "TopK(k=32), WIDE, nested=(128, 512)",
    "a fixed encoder centre": "TopK(k=4), FLAT, bias=Bias(decoder_only=True)",
    "AuxK": "TopK(k=32), WIDE, silent=True, revival=AuxK(dead_after_tokens=1)",
    "ghosts": "TopK(k=32), WIDE, silent=True, revival=GhostGradients(dead_after_tokens=1)",
    "BatchTopK": "BatchTopK(k=32), WIDE",
    "ReLU": "ReLU(), WIDE, penalty=L1(coefficient=1.0)",
    "JumpReLU": "JumpReLU(), WIDE, penalty=L0Target(l0=32.0)",
    "JumpReLU of high thresholds": "JumpReLU(start=2.5), WIDE, penalty=L0Target(l0=32.0)",
}
MEASURE = """
import ctypes, gc, json, re, sys, torch
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, TopK
from autopsae.training.bias import Bias
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.memory import bytes_of
from autopsae.training.objective import L0Target, L1
from autopsae.training.revival import AuxK, GhostGradients
from autopsae.training.sources import Member
WIDE, NARROW, SMALL, TALL = (256, 2048, 1024), (64, 1000, 4096), (50, 100, 8192), (512, 8192, 128)
FLAT = (512, 512, 16384)
libc = ctypes.CDLL("libc.so.6")
libc.mallopt(-3, 1 << 16)  # memory that is freed goes back at once
def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
def listed(sparsity, d_in, d_sae, members, batch, seeds, settings):
    saes = [born(untouched(d_in), d_sae=d_sae, sparsity=sparsity, scaled=False) for _ in range(members)]
    shared = dict(steps=2, lr=1e-3, batch_tokens=batch, buffer_tokens=2 * batch, **settings)
    return [Member(sae=sae, config=TrainConfig(seed=m % seeds, **shared)) for m, sae in enumerate(saes)]
def measure(sparsity, size, members=1, seeds=1, silent=False, **settings):
    x = torch.randn(2 * size[2], size[0], generator=torch.Generator().manual_seed(0))
    for batch in (64, size[2]):  # the first time, loops are compiled
        gc.collect()
        libc.malloc_trim(0)
        open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
        before = status("VmRSS")
        some = listed(sparsity, *size[:2], members, batch, seeds, settings)
        training = Training(some, x)
        for _ in range(2):
            if silent:
                training._account.watch.since_fired.fill_(10**9)
            training.advance()
        peak = status("VmHWM") - before
        del training
    return bytes_of(some), peak
print(json.dumps({name: eval(f"measure({case})") for name, case in json.loads(sys.argv[1]).items()}))
"""


def test_what_is_stated_for_a_sweep_is_what_it_takes_and_never_less() -> None:
    """Of one process, with one thread, whose pools and buffers are not what is stated."""
    pytest.importorskip("numba")
    command, env = [sys.executable, "-c", MEASURE, json.dumps(CASES)], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    ratios = {name: stated / peak for name, (stated, peak) in json.loads(done.stdout).items()}
    assert {name: ratio for name, ratio in ratios.items() if not 1 <= ratio <= 2} == {}


def member(sparsity: Sparsity, **settings: object) -> Member:
    sae = born(untouched(256), d_sae=2048, sparsity=sparsity, scaled=False)
    return Member(sae=sae, config=TrainConfig(**{"steps": 1, "lr": 1e-3, "batch_tokens": 4096, **settings}))  # type: ignore[arg-type]


def test_behind_a_screen_no_row_of_pre_activations_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    row = 4 * 4096 * 2048
    assert bytes_needed(member(TopK(k=32))) < row
    monkeypatch.setattr("autopsae.kernels.dispatch.load_loops", lambda: None)
    assert bytes_needed(member(TopK(k=32))) > row


def test_thresholds_tell_how_many_pairs_are_counted() -> None:
    low, high, relu = (bytes_needed(member(s)) for s in (JumpReLU(), JumpReLU(start=2.5), ReLU()))
    assert high < low / 3
    assert relu < low
    assert JumpReLU().pairs_per_token(1000, torch.full((1000,), 0.15)) == 500
    assert JumpReLU().pairs_per_token(1000, torch.full((1000,), 9.0)) == TopK(k=62).k == 1000 // 16


def test_what_members_share_is_counted_once() -> None:
    one, four = (bytes_of([member(TopK(k=32)) for _ in range(n)]) for n in (1, 4))
    assert four < 4 * one
    apart = bytes_of([member(TopK(k=32), seed=m, buffer_tokens=4096) for m in range(4)])
    together = bytes_of([member(TopK(k=32), buffer_tokens=4096) for _ in range(4)])
    batch = 4 * 4096 * 256
    assert apart - together == 3 * 2 * batch + 2 * 4 * batch  # three more buffers, two copies for each member
