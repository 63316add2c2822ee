"""What the compiled loops give does not depend on what the disk holds of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = """
import hashlib, torch
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.sources import Member

torch.set_num_threads(1)
tokens = torch.randn(600, 48, generator=torch.Generator().manual_seed(0))
seeded = torch.Generator().manual_seed(1)
sae = born(untouched(48), d_sae=640, sparsity=TopK(k=8), scaled=False, generator=seeded)
config = TrainConfig(steps=6, lr=1e-3, batch_tokens=200)
records = list(Training([Member(sae=sae, config=config)], tokens))
digest = hashlib.sha256(repr(records).encode())
for name, tensor in sorted(sae.state_dict().items()):
    digest.update(tensor.numpy().tobytes())
print(digest.hexdigest())
"""


def test_bits_just_compiled_and_from_disk(tmp_path: Path) -> None:
    """A run that compiles its loops, and a resumed one that finds them on disk, give the same bits."""
    pytest.importorskip("numba")
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", TRAIN]
    compiled, loaded = (subprocess.run(command, env=env, capture_output=True, text=True) for _ in range(2))
    assert compiled.returncode == loaded.returncode == 0, compiled.stderr + loaded.stderr
    assert list(tmp_path.rglob("*.nbi")), "nothing was kept: the second run compiled again"
    assert loaded.stdout == compiled.stdout


REPLACE = """
import functools, inspect, math
for name, value in inspect.getmembers(math, inspect.isbuiltin):
    setattr(math, name, functools.wraps(value)(lambda *given, value=value: value(*given)))
"""


COMPILED = "import numba\nnumba.njit(lambda x: x + 0.5)(2.0)\n"


@pytest.mark.parametrize("first", ["", COMPILED], ids=["before numba", "after numba has compiled"])
def test_loops_compile_where_another_library_has_replaced_the_functions_of_math(first: str, tmp_path: Path) -> None:
    """As nnsight does, which dictionary_learning imports. Its functions stay in place."""
    pytest.importorskip("numba")
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    # So large an SAE chooses behind a screen, whose loops take powers.
    train = TRAIN.replace("48", "128").replace("640", "1024")
    command = [sys.executable, "-c", f"{first}{REPLACE}{train}assert inspect.isfunction(math.fabs)"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


AT_ONCE = """
import threading
import numpy as np
from autopsae.kernels.numba_rows import sum_columns

x = np.ones((200_000, 64), dtype=np.float32)

def add_up(found):
    for _ in range(10):
        sums = np.zeros((2, 64))
        sum_columns(x, sums, 2)
        found.append(sums.sum())

found = []
workers = [threading.Thread(target=add_up, args=[found]) for _ in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert found == [x.sum(dtype=np.float64)] * 30
"""


def test_loops_on_several_threads_may_be_called_from_several_threads() -> None:
    """Numba's own threads end the process where two such loops run at once."""
    pytest.importorskip("numba")
    env = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
    done = subprocess.run([sys.executable, "-c", AT_ONCE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
