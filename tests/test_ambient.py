"""What a caller has set in PyTorch for code of their own changes no number of ours, and no error comes of it."""

import ast
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import autopsae as a
from autopsae import activations, ambient, evaluation, interop, sae, statistics, survival, training
from tests.features.sources import every_result, small_sae
from tests.test_devices import every_remedy

D_IN, D_SAE = 12, 64
SPARSITIES = [a.TopK(k=3), a.BatchTopK(k=3), a.GroupMax(k=4), a.ReLU(), a.JumpReLU()]
SOURCE = Path(a.__file__).parent

pytestmark = pytest.mark.quick


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    """As with `torch.set_default_device("cuda")`; a tensor on meta is seen on a machine without a GPU."""
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SET: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    "default device": partial(default_device, "meta"),
    "default float64": partial(default_dtype, torch.float64),
    "default bfloat16": partial(default_dtype, torch.bfloat16),
    "deterministic": deterministic,
    "NumPy raises": partial(np.errstate, all="raise"),
    "warnings are errors": partial(warnings.catch_warnings, action="error"),
}


def tokens(n: int = 600) -> Tensor:
    """Of a few directions and a mean, so that some latents die."""
    drawn = np.random.default_rng(0).standard_normal((n, D_IN)) * np.logspace(0.3, -0.7, D_IN)
    return torch.from_numpy((drawn + 0.7).astype(np.float32))


def born(sparsity: a.Sparsity) -> list[a.SAE]:
    x = tokens()
    rate: dict[str, Any] = {} if sparsity.name == "groupmax" else {"firing_rate": 0.15, "encoder_bias": True}
    return [
        a.born(remedy, d_sae=D_SAE, sparsity=sparsity, sample=x, layer_norm=layer_norm, **rate)
        for remedy in every_remedy(x)
        for layer_norm in (False, True)
    ]


def diagnosed(sparsity: a.Sparsity, folder: Path) -> object:
    found = a.diagnose(tokens(), d_sae=D_SAE, sparsity=sparsity, steps=1000)
    found.prescription.save(folder / "prescription")
    return without_times(found.to_dict()), a.born(a.Prescription.load(folder / "prescription")).state_dict()


def without_times(content: Any) -> Any:
    """Without who wrote it and when."""
    return {name: value for name, value in content.items() if name != "provenance"}


def counted(_folder: Path) -> object:
    x = tokens()
    W = sae.draw_rows(D_SAE, D_IN, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    b_enc = W.new_zeros(D_SAE)
    forecasts = [str(survival.forecast(x, W, of, b_enc=b_enc)) for of in (SPARSITIES[1], SPARSITIES[4])]
    births = [birth(x, of) for of in SPARSITIES]
    repeats = statistics.count_repeats(torch.cat([x, x[:100]]))
    return forecasts, births, str(repeats), str(survival.recovery(x, W.double(), lr=1e-3, steps=20))


def birth(x: Tensor, sparsity: a.Sparsity) -> str:
    generator = torch.Generator().manual_seed(0)
    more: dict[str, Any] = {"sample": x, "generator": generator}
    return str(survival.measure_birth(x, every_remedy(x), d_sae=D_SAE, sparsity=sparsity, **more))


def measured(sparsity: a.Sparsity, folder: Path) -> object:
    x, results = tokens(), list[Any]()
    for one in born(sparsity)[:4:2]:
        found = a.autopsy(one, x)
        results += [without_times(found.to_dict()), str(a.evaluate(one, x)), a.fates(one, x).by_rate()]
        results += [str(survival.forecast_trained(one, x)), evaluation.mmcs(one.W_dec, x[:20])]
        results += [one(x), one.encode(x), one.decode(one.encode(x)), one.fold().state_dict()]
        woken = a.recentre(one, center=found.center, is_dead=found.is_dead)
        results += [woken.state_dict(), one.pre_activations(one.enter(x)[0])]
        one.save(folder / "sae")
        results.append(a.load_sae(folder / "sae").state_dict())
    if sparsity.name in ("relu", "topk"):
        a.save_sae(born(sparsity)[0], folder / "theirs", to="saelens")
        results.append(interop.load_sae(folder / "theirs").state_dict())
    return results


def trained(sparsity: a.Sparsity, more: dict[str, Any], folder: Path) -> object:
    """Two side by side, of which one ends before the other; then resumed from a checkpoint."""
    config = a.TrainConfig(
        steps=6, lr=1e-3, record_every=3, batch_tokens=64, buffer_tokens=150, dead_after_tokens=128, **more
    )
    members = [training.Member(sae=one, config=config) for one in born(sparsity)[:4:2]]
    first = training.Training(members, tokens())
    records = [first.advance(), first.advance()]
    first.stop([0])
    first.save(folder / "checkpoint")
    again = training.Training([training.Member(sae=one, config=config) for one in born(sparsity)[:4:2]], tokens())
    again.load(folder / "checkpoint")
    records += list(again)
    return str(records), [member.sae.state_dict() for member in again.members]


def tried(folder: Path) -> object:
    config = a.TrainConfig(steps=6, lr=1e-3, batch_tokens=64)
    kept, sparsity = folder / "trial", a.TopK(k=3)
    return str(
        a.trial.trial(tokens(1500), ["none", "median"], config=config, d_sae=64, sparsity=sparsity, folder=kept)
    )


def harvested(folder: Path) -> object:
    np.save(folder / "x.npy", tokens().numpy())
    stored = activations.open_activations(folder / "x.npy")
    pairs = [*activations.synthetic_features(50, 2.0, generator=torch.Generator().manual_seed(0))]
    drawn = activations.gaussian_tokens(50, D_IN, 2.0, generator=torch.Generator().manual_seed(0))
    return str(a.diagnose(stored, d_sae=D_SAE, k=3)), pairs, drawn


def described(_folder: Path) -> object:
    return [str(result) for result in every_result(tokens(), small_sae(d_in=D_IN, d_sae=D_SAE))]


JOBS: dict[str, Callable[[Path], object]] = {
    "counted": counted,
    "tried": tried,
    "harvested": harvested,
    "described": described,
    **{f"diagnosed {of.name}": partial(diagnosed, of) for of in SPARSITIES},
    **{f"measured {of.name}": partial(measured, of) for of in SPARSITIES},
    **{f"trained {of.name}": partial(trained, of, {}) for of in SPARSITIES},
    "trained, auxk": partial(trained, SPARSITIES[0], {"revival": training.AuxK(dead_after_tokens=64)}),
    "trained, ghosts": partial(trained, SPARSITIES[0], {"revival": training.GhostGradients(dead_after_tokens=64)}),
    "trained, resampled": partial(
        trained, SPARSITIES[0], {"resampling": training.Resampling(every_steps=2, dead_after_tokens=64)}
    ),
    "trained, sign": partial(trained, SPARSITIES[0], {"optimizer": "sign_sgd"}),
    "trained, sparse": partial(trained, SPARSITIES[0], {"optimizer": "sparse_adam", "clip_norm": 1.0}),
    "trained, nested": partial(trained, SPARSITIES[0], {"nested": (8, 20)}),
}


def plain(value: Any) -> Any:
    """Tensors as their bytes, everything else as it is shown."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().cpu().double().numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else repr(value)


def state_of_process() -> dict[str, Any]:
    """What other code in this process would notice if it were changed."""
    return {
        "chance": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),  # noqa: NPY002
        "torch": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()),
        "modes": (torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()),
        "numpy": np.geterr(),
        "warnings": [*warnings.filters],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "logging": ([*logging.root.handlers], logging.root.level),
        "process": (dict(os.environ), Path.cwd(), sys.excepthook),
    }


@pytest.mark.parametrize("job", JOBS)
def test_what_is_set_for_other_code_changes_nothing_and_is_left_as_it_was(job: str, tmp_path: Path) -> None:
    for name in ("plain", "again"):
        (tmp_path / name).mkdir()
    expected = plain(JOBS[job](tmp_path / "plain"))
    before, differs = state_of_process(), {}  # what is imported late may change it the first time
    assert plain(JOBS[job](tmp_path / "again")) == expected
    assert state_of_process() == before
    for name, context in SET.items():
        (tmp_path / name).mkdir()
        with context():
            got = JOBS[job](tmp_path / name)
        if plain(got) != expected:
            differs[name] = got
    assert not differs


def test_products_and_gradients_are_those_of_no_context() -> None:
    x, leaf = tokens(50), torch.ones(D_IN, requires_grad=True)
    expected = x @ x.T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x.T).dtype == torch.bfloat16
        assert ambient.matmul(x, x.T).equal(expected)
        assert ambient.matmul(x.to("meta"), x.T.to("meta")).shape == expected.shape
    with torch.inference_mode(), ambient.with_gradients("cpu"):
        (x * leaf).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.equal(x.sum(dim=0))
    for context in (torch.no_grad, torch.inference_mode):
        with context(), ambient.outside_inference_mode():
            assert not torch.is_grad_enabled()
            assert not torch.ones(1).is_inference()


MAKES = "empty eye full linspace logspace ones rand randn scalar_tensor zeros"
WHOLE = "arange randint randperm tensor"
"""Their type is that of what they are given, mostly whole numbers."""


def test_every_new_tensor_names_its_device_and_its_type() -> None:
    """Where it does not, it is what the caller has set."""
    calls = [
        (f"{file.relative_to(SOURCE)}:{node.lineno}", ast.unparse(node.func), [word.arg for word in node.keywords])
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    ]
    typed, whole = ({f"torch.{name}" for name in names.split()} for names in (MAKES, WHOLE))
    made = [(place, name, words) for place, name, words in calls if name in typed | whole]
    assert len(made) > 100
    made = [(place, name, words) for place, name, words in made if None not in words]  # None: **more
    assert not [place for place, _, words in made if "device" not in words]
    assert not [place for place, name, words in made if name in typed and "dtype" not in words]
