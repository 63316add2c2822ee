"""A sweep of SAEs trained at once, against the peers training one after another and against its bare products.

All take steps on the same tokens in turn, so that a slow spell of the machine meets all; medians are compared, per
member and step. The products are those of all members' encoders as one batched product into memory that is used
again. A sweep's turn is ten steps, death accounting and one record of every member included; a peer's turn is one
step, and it makes no record. Also the memory that a sweep says it will take, against its measured peak.

`make test` installs the peers. Run as `python -m benchmarks.sweep`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autopsae.activations.synthetic import synthetic_features
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.memory import bytes_of
from autopsae.training.sources import Member
from benchmarks.harness import interleaved, peak_memory, save
from benchmarks.peers import PEERS, Setting, versions

SYNTHETIC = Setting(d_in=50, d_sae=100, k=5, batch_tokens=512)
CONTESTS = {
    "32 synthetic, batch 512": (SYNTHETIC, 32, 40),
    "32 synthetic, batch 4096": (replace(SYNTHETIC, batch_tokens=4096), 32, 15),
    "8 learning rates, d_in 384, d_sae 2048": (Setting(d_in=384, d_sae=2048, k=32, batch_tokens=2048), 8, 9),
}
TURN = 10
"""Steps of a sweep between the clock's two looks."""
OURS, FLOAT32, PRODUCTS = "autopsae", "autopsae, float32 products", "encoder products alone"


def members(setting: Setting, count: int, **settings: Any) -> list[Member]:
    """The same SAE at so many learning rates."""

    def member(m: int) -> Member:
        generator = torch.Generator().manual_seed(m)
        sparsity = TopK(k=setting.k)
        sae = born(
            untouched(setting.d_in),
            d_sae=setting.d_sae,
            sparsity=sparsity,
            scaled=False,
            generator=generator,
            encoder_bias=True,
        )
        config = TrainConfig(
            steps=10**9,
            lr=setting.lr * 1.05**m,
            batch_tokens=setting.batch_tokens,
            buffer_tokens=8 * setting.batch_tokens,
            record_every=TURN,
            **settings,
        )
        return Member(sae=sae, config=config)

    return [member(m) for m in range(count)]


def tokens(setting: Setting) -> Tensor:
    """Synthetic features at gamma 10, of any width."""
    drawn = synthetic_features(
        8 * setting.batch_tokens, 10.0, d_in=setting.d_in, generator=torch.Generator().manual_seed(0)
    )
    return torch.cat(list(drawn))


def products(setting: Setting, x: Tensor, count: int) -> Callable[[], Any]:
    batch = x[: setting.batch_tokens].repeat(count, 1, 1)
    W = torch.randn(count, setting.d_sae, setting.d_in)
    pre = torch.empty(count, setting.batch_tokens, setting.d_sae)
    return lambda: torch.bmm(batch, W.mT, out=pre)


def turn(setting: Setting, count: int, x: Tensor, **settings: Any) -> Callable[[], Any]:
    """Ten steps of a sweep."""
    sweep = Training(members(setting, count, **settings), x)
    return lambda: [sweep.advance() for _ in range(TURN)]


def contest(setting: Setting, count: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per member and step, and how many times ours goes into them."""
    torch.manual_seed(0)
    x = tokens(setting)
    contestants: dict[str, Callable[[], Any]] = {PRODUCTS: products(setting, x, count)}
    contestants[OURS] = turn(setting, count, x)
    if setting.d_sae >= 1024:
        contestants[FLOAT32] = turn(setting, count, x, products="float32")
    steps = {PRODUCTS: count, OURS: TURN * count, FLOAT32: TURN * count}
    for name, make in PEERS.items():
        contestants[name] = partial(make(setting), x[: setting.batch_tokens])
    interleaved(contestants, 3)  # compiled, and memory found
    seconds = interleaved(contestants, rounds)
    each = {name: value / steps.get(name, 1) for name, value in seconds.items()}
    fastest = min((value, name) for name, value in each.items() if name in PEERS)
    return {
        "setting": vars(setting),
        "members": count,
        "milliseconds_per_member": {name: round(1000 * value, 4) for name, value in each.items()},
        "of_ours": {name: round(value / each[OURS], 2) for name, value in each.items()},
        "ours_of_products": {
            name: round(each[name] / each[PRODUCTS], 2) for name in (OURS, FLOAT32) if name in each
        },
        "fastest_peer": fastest[1],
        "times_the_fastest_peer": {
            name: round(fastest[0] / each[name], 2) for name in (OURS, FLOAT32) if name in each
        },
    }


def memory(setting: Setting, count: int) -> dict[str, float]:
    """Peak of five steps, in MB, against what the sweep says."""
    x = tokens(setting)
    Training(members(setting, 2), x).advance()  # compiled
    with peak_memory() as peak:
        listed = members(setting, count)
        sweep = Training(listed, x)
        for _ in range(5):
            sweep.advance()
    said = bytes_of(listed) / 1e6
    return {"peak_mb": round(peak.megabytes, 1), "said_mb": round(said, 1)}


def main() -> None:
    results: dict[str, Any] = {"versions": versions()}
    # First, while the process holds no memory that could be used again.
    results["memory"] = {name: memory(setting, count) for name, (setting, count, _) in CONTESTS.items()}
    results |= {name: contest(*given) for name, given in CONTESTS.items()}
    save("sweep", results)


if __name__ == "__main__":
    main()
