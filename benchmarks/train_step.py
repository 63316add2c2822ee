"""One training step, death accounting by pathway included, against those of the peers and against its own product.

Every contestant takes one step on the same tokens in turn, so that a slow spell of the machine meets all; the
medians are compared. The products are x @ W_enc^T alone, in float32 and in bfloat16, into memory that is used
again.
`make test` installs the peers. Run as `python -m benchmarks.train_step`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from autopsae.kernels import dispatch
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.revival import AuxK
from autopsae.training.sources import Member
from benchmarks.harness import interleaved, peak_memory, save
from benchmarks.peers import PEERS, Setting, versions

SMALL = Setting(d_in=384, d_sae=8192, k=64, batch_tokens=2048)
LARGE = Setting(d_in=384, d_sae=32_768, k=64, batch_tokens=4096)
WIDE = Setting(d_in=1024, d_sae=16_384, k=64, batch_tokens=4096)
WITH_AUXK = Setting(d_in=384, d_sae=8192, k=64, batch_tokens=2048, auxk_dead=0.5)
OURS, FLOAT32, PLAIN = "autopsae", "autopsae, float32 products", "autopsae without Numba"
INT8 = "autopsae, int8 products"
PRODUCT, BFLOAT16_PRODUCT = "encoder product alone", "encoder product alone, bfloat16"


def ours(setting: Setting, x: Tensor, **settings: Any) -> Callable[[], Any]:
    """Our step, with a share of latents held dead if the setting says so."""
    sae = born(
        untouched(setting.d_in),
        d_sae=setting.d_sae,
        sparsity=TopK(k=setting.k),
        scaled=False,
        generator=torch.Generator().manual_seed(0),
        encoder_bias=True,
    )
    auxk = AuxK(dead_after_tokens=10**9) if setting.auxk_dead else None
    config = TrainConfig(
        steps=10**9, lr=setting.lr, batch_tokens=setting.batch_tokens, revival=auxk, clip_norm=None, **settings
    )
    training = Training([Member(sae=sae, config=config)], x)
    dead = torch.randperm(setting.d_sae)[: round(setting.auxk_dead * setting.d_sae)]

    def step() -> None:
        training._account.watch.since_fired[:, dead] = 10**9
        training.advance()

    return step


def without_numba(make: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
    """A step that is made, and each time taken, as if Numba were not installed."""

    def alone(do: Callable[[], Any]) -> Any:
        with mock.patch.object(dispatch, "load_loops", return_value=None):
            return do()

    step = alone(make)
    return lambda: alone(step)


def product(setting: Setting, x: Tensor, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    W, y = torch.randn(setting.d_sae, setting.d_in).to(dtype), x.to(dtype)
    pre = torch.empty(setting.batch_tokens, setting.d_sae, dtype=dtype)
    return lambda: torch.mm(y, W.T, out=pre)


def contest(setting: Setting, rounds: int) -> dict[str, Any]:
    """Medians of everyone's step, in ms, and how many times ours goes into them."""
    torch.manual_seed(0)
    x = torch.randn(setting.batch_tokens, setting.d_in)
    contestants = {
        PRODUCT: product(setting, x),
        BFLOAT16_PRODUCT: product(setting, x, torch.bfloat16),
        OURS: ours(setting, x),
    }
    if not setting.auxk_dead:
        contestants[FLOAT32] = ours(setting, x, products="float32")
        contestants[PLAIN] = without_numba(partial(ours, setting, x))
    if setting.d_in >= 1024:
        contestants[INT8] = ours(setting, x, products="int8")
    for name, make in PEERS.items():
        if setting.auxk_dead and name == "sparsify":
            continue  # its AuxK never reaches the encoder
        contestants[name] = partial(make(setting), x)
    interleaved(contestants, 2)  # compiled, and memory found
    seconds = interleaved(contestants, rounds)
    return {
        "setting": vars(setting),
        "milliseconds": {name: round(1000 * value, 1) for name, value in seconds.items()},
        "of_ours": {name: round(value / seconds[OURS], 2) for name, value in seconds.items()},
        "of_product": {name: round(value / seconds[PRODUCT], 2) for name, value in seconds.items()},
    }


def memory(setting: Setting) -> dict[str, float]:
    """Peak of five steps, in MB, against parameters, optimizer state and one bfloat16 [B, d_sae] matrix."""
    x = torch.randn(setting.batch_tokens, setting.d_in)
    ours(setting, x)()  # compiled
    with peak_memory() as peak:
        step = ours(setting, x)
        for _ in range(5):
            step()
    weights = 2 * setting.d_sae * setting.d_in
    limit = (4 * 3 * weights + 2 * setting.batch_tokens * setting.d_sae) / 1e6
    return {"peak_mb": round(peak.megabytes, 1), "of": round(limit, 1), "times": round(peak.megabytes / limit, 2)}


def main() -> None:
    results = {
        "versions": versions(),
        "memory": memory(SMALL),
        "small": contest(SMALL, 15),
        "auxk on half of the latents": contest(WITH_AUXK, 9),
        "large": contest(LARGE, 3),
        "wide": contest(WIDE, 3),
    }
    save("train_step", results)


if __name__ == "__main__":
    main()
