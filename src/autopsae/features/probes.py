"""Probes of documents: is a label held by one latent, by a few, or by the raw activations as well?

scikit-learn fits them: `pip install 'autopsae[features]'`. It is imported only when a probe is fitted.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arguments import whole, whole_arguments
from autopsae.arrays import InputError
from autopsae.defaults import PROBE_KS
from autopsae.extras import package_error
from autopsae.features.codes import Codes
from autopsae.seeds import hash_seed, stream
from autopsae.tables import Result
from autopsae.vectors import Vector, as_array, items_of, truth_values
from autopsae.words import list_names, show


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """A logistic probe on some columns of a representation, fitted on training rows, scored on test rows."""

    representation: str
    """What the columns are of: "latents" (or the name of an SAE), "neurons", "principal components" or "random
    directions"."""
    k: int
    """Number of columns that the probe sees."""
    columns: tuple[int, ...]
    """Which ones, the most different between the classes first."""
    auc: float
    """Area under the ROC curve on test rows; 0.5 is chance."""
    accuracy: float
    """Share of the test rows that are classified right."""
    f1: float
    """F1 of the positive class on test rows."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Probes(Result):
    """Probes of one binary label (`fit_probes`)."""

    scores: tuple[ProbeScore, ...]
    """One for each representation and number of columns."""
    shuffled: tuple[ProbeScore, ...]
    """The same with labels that are shuffled among training rows and among test rows: what chance reaches."""
    train: tuple[int, int]
    """Training rows without and with the label."""
    test: tuple[int, int]
    """Test rows without and with the label."""

    def best(self, representation: str, k: int) -> ProbeScore:
        """The score of a representation at k columns. Raises InputError where it was not fitted."""
        for score in self.scores:
            if (score.representation, score.k) == (representation, k):
                return score
        known = ", ".join(f"{score.representation} {score.k}" for score in self.scores)
        raise InputError(f"probes: expected one of {known}, got {representation} {k}")

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "train": list(self.train),
            "test": list(self.test),
            "scores": [asdict(score) for score in self.scores],
            "shuffled": [asdict(score) for score in self.shuffled],
        }

    def __str__(self) -> str:
        parts = ", ".join(f"{s.representation} k {s.k}: {s.auc:.3f}" for s in self.scores)
        return f"AUC on {sum(self.test):,} test rows: {parts}"


def score_at(scores: Sequence[ProbeScore], representation: str, k: int) -> ProbeScore:
    """The score of a representation at k columns, or at all where it has fewer.

    Raises InputError for a representation that was not probed.
    """
    own = [score for score in scores if score.representation == representation]
    if not own:
        known = list_names(dict.fromkeys(score.representation for score in scores))
        raise InputError(f"probes: expected one of {known}, got {representation}")
    return next((score for score in own if score.k >= k), own[-1])


@whole_arguments("seed")
def representations(
    codes: Codes | Mapping[str, Codes],
    activations: Float[Tensor, "rows d_in"],
    is_test: Vector,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """{name: matrix [rows, columns]} that probes are compared on: "latents" (sparse), and the controls "neurons",
    "principal components" of the training rows, and "random directions", as many as neurons. A row is a document
    or a token.

    codes: an input for each row (of documents: `pool_codes`), or {name: codes} of several SAEs, which then stand
    under their names; activations: the same rows (`pool_tokens`); is_test: the rows that nothing is fitted on.

    Raises InputError where scikit-learn is missing, for other numbers of rows, and for an SAE named as a control.
    """
    named = {"latents": codes} if isinstance(codes, Codes) else codes
    latents = {name: _sparse_matrix(own) for name, own in named.items()}
    x = activations.detach().cpu().double().numpy()
    test = truth_values("is_test", is_test)
    for matrix in latents.values():
        if not len(x) == matrix.shape[0] == len(test):
            raise InputError(
                f"representations: expected as many rows of codes, activations and is_test, got "
                f"{matrix.shape[0]:,}, {len(x):,} and {len(test):,}"
            )
    centered = x - x[~test].mean(axis=0)
    directions = _principal_directions(centered[~test])
    drawn = torch.randn(
        x.shape[1], x.shape[1], generator=stream(seed, "random directions"), dtype=torch.float64, device="cpu"
    )
    controls = {
        "neurons": x,
        "principal components": centered @ directions.T,
        "random directions": centered @ drawn.numpy() / np.sqrt(x.shape[1]),
    }
    if same := {*controls} & {*named}:
        raise InputError(f"representations: expected SAEs of other names than the controls, got {min(same)}")
    return {**latents, **controls}


@whole_arguments("seed")
def fit_probes(
    features: Mapping[str, Any],
    labels: Vector,
    is_test: Vector,
    *,
    ks: Sequence[int] = PROBE_KS,
    seed: int = 0,
) -> Probes:
    """Sparse logistic probes of a binary label: for each representation and each k, the k columns that differ most
    between the classes on training rows (difference of the means over the standard deviation), scaled to standard
    deviation 1, and a logistic regression on them with balanced classes (L2, C = 1). k = 1 is the best single
    latent or neuron. A k over the number of columns means all of them.

    The same is done with shuffled labels (`Probes.shuffled`).

    features: {name: matrix [rows, columns]}, of NumPy, torch or SciPy sparse (`representations`); labels: one 0 or
    1 per row; seed: of the shuffling.

    Raises InputError for labels that are no 0 and 1 or constant on one side of the split, for other numbers of
    rows, for features that are not finite, for ks below 1 or not whole, and where scikit-learn is missing.
    """
    y, test = _check(labels, is_test)
    sizes = [whole("ks", k) for k in items_of("ks", ks, "numbers of columns")]
    if not sizes or min(sizes) < 1:
        raise InputError(f"ks: expected numbers of columns of at least 1, got {sizes}")
    matrices = {name: _matrix(name, given, len(y)) for name, given in features.items()}
    mixed, chance = y.copy(), np.random.default_rng(hash_seed(seed, "shuffled labels"))
    for rows in (test, ~test):
        mixed[rows] = chance.permutation(y[rows])
    return Probes(
        scores=_fit_all(matrices, y, test, sizes),
        shuffled=_fit_all(matrices, mixed, test, sizes),
        train=(int((~y & ~test).sum()), int((y & ~test).sum())),
        test=(int((~y & test).sum()), int((y & test).sum())),
    )


def _fit_all(
    features: Mapping[str, Any], y: NDArray[np.bool_], test: NDArray[np.bool_], ks: Sequence[int]
) -> tuple[ProbeScore, ...]:
    scores = list[ProbeScore]()
    for name, matrix in features.items():
        order = _rank(matrix, y, ~test)
        sizes = sorted({min(k, len(order)) for k in ks})
        scores += [_fit(name, matrix, order[:k], y, test) for k in sizes]
    return tuple(scores)


def _matrix(name: str, given: Any, rows: int) -> Any:
    """Features as a NumPy or a SciPy sparse matrix of finite numbers, with a row for each label."""
    matrix = given if hasattr(given, "tocsc") else as_array(name, given)
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf":
        raise InputError(
            f"{name}: expected a matrix of numbers [rows, columns], got {matrix.dtype} of shape {matrix.shape}"
        )
    if matrix.shape[0] != rows:
        raise InputError(f"{name}: expected a row for each of {rows:,} labels, got {matrix.shape[0]:,}")
    if not (finite := np.isfinite(matrix.data if hasattr(matrix, "tocsc") else matrix)).all():
        bad = int((~finite).sum())
        raise InputError(
            f"{name}: expected finite features, got {bad:,} that are NaN or infinite; leave out their rows"
        )
    # Squares of small integers and of float16 would overflow.
    return matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float64)


def _principal_directions(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The principal directions in which centred rows vary; one at least.

    Fewer rows than columns leave directions of rounding errors alone: scaled to standard deviation 1, they would
    drown all others.
    """
    _, sizes, directions = np.linalg.svd(x, full_matrices=False)
    rank = int((sizes > sizes[0] * max(x.shape) * np.finfo(np.float64).eps).sum())
    return directions[: max(1, rank)]


def _sparse_matrix(codes: Codes) -> Any:
    sparse = import_sklearn("scipy.sparse")
    parts = [sparse.csr_matrix((b.values, b.latents, b.ends), shape=(len(b), codes.d_sae)) for b in codes]
    return sparse.vstack(parts).tocsc()


def import_sklearn(module: str) -> Any:
    """A module of scikit-learn or SciPy. Raises InputError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise package_error("probes", module.split(".")[0], error, install="autopsae[features]") from error


def _check(labels: Vector, is_test: Vector) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    given, test = as_array("labels", labels), truth_values("is_test", is_test)
    if given.shape != test.shape or given.dtype.kind not in "biuf" or not np.isin(given, (0, 1)).all():
        raise InputError(
            f"labels: expected a 0 or 1 for each of {len(test):,} rows, got {given.dtype} of shape {given.shape}, "
            f"such as {show(given.reshape(-1)[:4].tolist())}"
        )
    y = given.astype(bool)
    for side, rows in (("training", ~test), ("test", test)):
        if len(np.unique(y[rows])) < 2:
            raise InputError(
                f"labels: expected 0 and 1 among the {side} rows, got {'one value' if rows.any() else 'no row'}; "
                "split the rows otherwise, or leave this label out"
            )
    return y, test


def _rank(matrix: Any, y: NDArray[np.bool_], train: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The columns by the difference of the class means over the standard deviation, largest first."""
    apart = _mean(matrix, y & train) - _mean(matrix, ~y & train)
    spread = np.sqrt(np.maximum(_mean(_square(matrix), train) - _mean(matrix, train) ** 2, 0))
    strength = np.divide(np.abs(apart), spread, out=np.zeros_like(apart), where=spread > 0)
    return np.argsort(-strength, kind="stable")


def _mean(matrix: Any, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of the columns over some rows, in float64, of a dense or a sparse matrix."""
    weights = rows / rows.sum()
    return np.asarray(matrix.T @ weights, np.float64)


def _square(matrix: Any) -> Any:
    return matrix**2 if isinstance(matrix, np.ndarray) else matrix.multiply(matrix)


def _fit(
    name: str, matrix: Any, columns: NDArray[np.int64], y: NDArray[np.bool_], test: NDArray[np.bool_]
) -> ProbeScore:
    linear, metrics = import_sklearn("sklearn.linear_model"), import_sklearn("sklearn.metrics")
    some = matrix[:, columns]
    x = np.asarray(some if isinstance(some, np.ndarray) else some.toarray(), np.float64)
    spread = x[~test].std(axis=0)
    x = (x - x[~test].mean(axis=0)) / np.where(spread > 0, spread, 1)
    model = linear.LogisticRegression(class_weight="balanced", max_iter=1000).fit(x[~test], y[~test])
    score = model.decision_function(x[test])
    return ProbeScore(
        representation=name,
        k=len(columns),
        columns=tuple(map(int, columns)),
        auc=float(metrics.roc_auc_score(y[test], score)),
        accuracy=float((y[test] == (score > 0)).mean()),
        f1=float(metrics.f1_score(y[test], score > 0, zero_division=0.0)),
    )
