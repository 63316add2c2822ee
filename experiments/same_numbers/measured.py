"""What no verb gives, from the Python names of one tree: `python -m experiments.same_numbers.measured TOKENS`.

It writes `python/numbers.json`, and SAEs that no verb trains, into this folder. Names come from `names.get`.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.same_numbers.names import forecast_with, get, sparsity, training_of, with_k
from experiments.same_numbers.written import digest
from torch import Tensor

D_SAE, K = 96, 4


def main() -> None:
    """All parts; each is one entry of the JSON."""
    tokens = {path.stem: torch.from_numpy(np.load(path)) for path in sorted(Path(sys.argv[1]).glob("layers/*.npy"))}
    torch.manual_seed(0)  # nothing may read it
    found = {}
    for name, measure in PARTS.items():
        try:
            found[name] = plain(measure(tokens))
        except Exception:  # the other parts are still worth comparing, and the numbers of this one are missed
            traceback.print_exc()
    Path("python/numbers.json").write_text(json.dumps(found, indent=1))


def plain(value: Any) -> Any:
    """Dataclasses with their properties, mappings and lists as JSON; tensors as digests, other objects left out."""
    if isinstance(value, Tensor):
        return digest(value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        names += [name for name, member in vars(type(value)).items() if isinstance(member, property)]
        value = {name: getattr(value, name) for name in names if not name.startswith("_")}
    if isinstance(value, dict):
        return {str(name): plain(entry) for name, entry in value.items() if _kept(entry)}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def _kept(value: Any) -> bool:
    if is_dataclass(value):
        return not type(value).__name__.startswith("_")
    return value is None or isinstance(value, Tensor | int | float | str | dict | list | tuple)


def statistics(tokens: dict[str, Tensor]) -> Any:
    """Moments, norms and sample of each layer, and its geometric median."""
    found = {}
    for name, x in tokens.items():
        seen = get("collect")(x, seed=1)
        found[name] = {"statistics": seen, "median": get("geometric_median")(seen.sample)}
        found[name]["derived"] = {"covariance": seen.raw.covariance, "std": seen.raw.std, "sample": seen.sample}
    return found


def remedies_of(x: Tensor) -> list[Any]:
    """One of each kind."""
    seen = get("collect")(x, seed=1)
    median, spectrum = get("geometric_median")(seen.sample), get("Spectrum").of(seen.raw.covariance)
    return [
        get("untouched")(x.shape[1]),
        get("center")(seen.raw.mean, "mean"),
        get("center")(median, "median"),
        get("z_score")(seen.raw.std, median),
        get("whiten")(spectrum, median, alpha=0.3),
        get("active_subspace")(spectrum, median, rank=8),
    ]


def births(tokens: dict[str, Tensor]) -> Any:
    """Death at birth counted under each remedy, and the closed forms."""
    measure, generator = get("measure_birth"), torch.Generator().manual_seed
    found: dict[str, Any] = {
        name: measure(x, remedies_of(x), d_sae=D_SAE, generator=generator(3), **with_k(measure, K))
        for name, x in tokens.items()
    }
    relu, topk = get("dead_by_relu"), get("dead_by_topk")
    found["closed_forms"] = [[relu(g, n), topk(g, n, d_sae=512, k=8)] for g in (0.0, 0.5, 5.0) for n in (1, 10**6)]
    return found


def forecasts(tokens: dict[str, Tensor]) -> Any:
    """`forecast` and `forecast_births` for who fires in each kind of SAE; `revival`."""
    found: dict[str, Any] = {}
    for kind, threshold in (("topk", None), ("batch_topk", None), ("relu", None), ("jumprelu", 0.7)):
        for name, x in tokens.items():
            sample, generator = x[:1000], torch.Generator().manual_seed(2)
            rows = get("draw_rows")(D_SAE, x.shape[1], generator=torch.Generator().manual_seed(4))
            who: dict[str, Any] = {"kind": kind, "k": K}
            level = None if threshold is None else torch.linspace(0.1, threshold, D_SAE)
            b_enc = torch.linspace(-0.5, 0.5, D_SAE)
            alone = forecast_with("forecast", sample, rows, threshold=level, b_enc=b_enc, **who)
            born = forecast_with(
                "forecast_births",
                sample,
                remedies_of(x),
                threshold=threshold,
                d_sae=D_SAE,
                generator=generator,
                **who,
            )
            outlooks = {"alone": alone, **born}
            found[f"{kind}_{name}"] = {of: [f.at(n) for n in (100, 10**6)] for of, f in outlooks.items()}
    for name, x in tokens.items():
        rows = get("draw_rows")(D_SAE, x.shape[1], generator=torch.Generator().manual_seed(4))
        ways: list[tuple[str, ...]] = [(), ("b_dec",), ("W_enc", "W_dec")]
        found[f"revival_{name}"] = [
            get("revival")(x[:1000], rows, lr=1e-3, steps=500, tokens=10_000, frozen=frozen) for frozen in ways
        ]
    return found


def trained(tokens: dict[str, Tensor]) -> Any:
    """A short training for each setting that no verb has: records, weights, evaluation, fates."""
    penalties = {"relu": get("L1")(coefficient=1.0, warmup_steps=20), "jumprelu": get("L0Target")(l0=6.0)}
    resampling = get("Resampling")(every_steps=10, until_step=35, dead_after_tokens=1000)
    settings: dict[str, dict[str, Any]] = {
        "auxk": {"revival": get("AuxK")(dead_after_tokens=1500, k_aux=7)},
        "ghost": {"revival": get("GhostGradients")(dead_after_tokens=1500)},
        "resampling": {"resampling": resampling},
        "batch_topk": {"k_start": 16, "k_steps": 20},
        "groupmax": {"optimizer": "sparse_adam"},
        "relu": {"clip_norm": 0.5, "unit_decoder": False},
        "jumprelu": {"resampling": resampling},
        "frozen_b_dec": {"frozen": ("b_dec",)},
        "frozen_features": {"frozen": ("W_enc", "W_dec"), "optimizer": "sign_sgd"},
        "slow_b_dec": {"bias": get("BIASES")["slow"]},
    }
    x, found = tokens["severe"], {}
    for name, setting in settings.items():
        sae = _born(x, name)
        config = _config(**setting, penalty=penalties.get(name))
        records = get("train")(sae, x[500:], config)
        state = {"records": records, "weights": dict(sae.state_dict())}
        found[name] = {**state, "evaluation": get("evaluate")(sae, x[:500]), "fates": get("fates")(sae, x[:500])}
        found[name]["mmcs"] = get("mmcs")(sae.W_dec, torch.eye(x.shape[1]))
        if name == "groupmax":
            sae.save("python/groupmax")
    return found


def swept(tokens: dict[str, Tensor]) -> Any:
    """A sweep of members with resampling, AuxK and shifts of their own."""
    x = tokens["severe"]
    kinds: list[dict[str, Any]] = [
        {"resampling": get("Resampling")(every_steps=8, dead_after_tokens=1000)},
        {"revival": get("AuxK")(dead_after_tokens=1000), "lr": 3e-3},
        {"revival": get("GhostGradients")(dead_after_tokens=1000), "seed": 7},
    ]
    members = [
        get("Member")(sae=_born(x, "topk"), config=_config(**kind), shift=torch.full((x.shape[1],), 0.1 * place))
        for place, kind in enumerate(kinds)
    ]
    records = [{str(member): record for member, record in told.items()} for told in training_of(members, x)]
    return {"records": records, "weights": [dict(member.sae.state_dict()) for member in members]}


def starts(tokens: dict[str, Tensor]) -> Any:
    """`born` under each remedy: weights, codes and reconstructions; what folding and re-centring make of it."""
    found: dict[str, Any] = {}
    for name, x in tokens.items():
        for remedy in remedies_of(x):
            for kind in ("topk", "jumprelu"):
                sae = _born(x, kind, remedy=remedy)
                found[f"{name}_{remedy.name}_{kind}"] = {**sae.state_dict(), "scale": float(sae.scale)}
                found[f"{name}_{remedy.name}_{kind}"] |= {"out": sae(x[:64]), "folded": sae.fold()(x[:64])}
    return found


def _born(x: Tensor, kind: str, *, remedy: Any = None) -> Any:
    kind = kind if kind in ("batch_topk", "groupmax", "relu", "jumprelu") else "topk"
    return get("born")(
        remedy or get("untouched")(x.shape[1]),
        d_sae=D_SAE,
        sparsity=sparsity(kind, K),
        sample=x[:600],
        generator=torch.Generator().manual_seed(6),
        firing_rate=0.1 if kind in ("relu", "jumprelu") else None,
    )


def _config(**setting: Any) -> Any:
    common = {"steps": 40, "lr": 1e-3, "batch_tokens": 200, "dead_after_tokens": 1500, "seed": 1}
    return get("TrainConfig")(**{**common, **setting})


PARTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "statistics": statistics,
    "births": births,
    "forecasts": forecasts,
    "trained": trained,
    "swept": swept,
    "starts": starts,
}

if __name__ == "__main__":
    main()
