"""The file of a part: the statistics of some layers on some shards, and which tokens these are.

A safetensors file. Its metadata has `about`, which says what is covered and of which layers, with a checksum of
each layer's tensors, and `sha256`, the checksum of `about`; so a layer is read and checked without the others.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from autopsae.activations.coverage import Coverage, Run
from autopsae.arrays import InputError
from autopsae.files import write_tensors
from autopsae.kinds import check_kind, fields, flag, list_of, mapping_of, nothing_or, number, one_of, text, whole
from autopsae.mirror import copy_of
from autopsae.provenance import provenance
from autopsae.reading import check_regular, parse
from autopsae.saved import Layout, as_json, check_tensors, input_errors_of_saved, tensors_checksum
from autopsae.statistics.collect import PartialStatistics
from autopsae.statistics.moments import Marginals, Moments
from autopsae.statistics.norms import BINS, NormHistogram
from autopsae.statistics.repeats import COUNTED, RowCounts
from autopsae.statistics.sample import Reservoir, ReservoirState
from autopsae.words import printable

FORMAT = "autopsae-part"
VERSION = 1

_RUN = fields({"name": text, "start": whole(0), "tokens": whole(), "digest": text})
_COVERAGE = fields(
    {
        "order": one_of("store", "places", "files"),
        "store": text,
        "shards": nothing_or(mapping_of(whole())),
        "runs": list_of(_RUN),
    }
)
_LAYER = fields(
    {
        "name": text,
        "d_in": whole(2, 2**31),
        "is_wide": flag,
        "largest_norm": number(-1e-9),
        "zero_rows": whole(0),
        "kept": whole(1, 2**40),
        "sha256": text,
    }
)
_ABOUT = fields(
    {
        "format": text,
        "version": whole(),
        "seed": whole(0, 2**63 - 1),
        "sample_tokens": whole(),
        "coverage": _COVERAGE,
        "layers": list_of(_LAYER),
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerPart:
    """What a part holds of one layer."""

    statistics: PartialStatistics
    """On the tokens that the part covers."""
    documents: NDArray[np.int64] | None
    """The document of each token of the reservoir, in the order of the stream; None where the files do not tell."""


@dataclass(frozen=True, kw_only=True)
class PartFile:
    """A part that lies on disk; `read` reads one of its layers."""

    path: Path
    local: Path
    """The same, or its copy where it lies at a URL."""
    coverage: Coverage
    """Which tokens it is of."""
    seed: int
    """Chooses the sample."""
    sample_tokens: int
    """Size of the sample."""
    layers: Mapping[str, Mapping[str, Any]]
    """What the file says of each layer, by its name."""

    def read(self, layer: str) -> LayerPart:
        """A layer of the part. Raises InputError where its tensors are not those that were saved."""
        about, number = self.layers[layer], [*self.layers].index(layer)
        with input_errors_of_saved(self.path, FORMAT), safe_open(self.local, framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(f"{number}.")]  # noqa: SIM118
            tensors = {name.removeprefix(f"{number}."): opened.get_tensor(name) for name in names}
        if tensors_checksum(layer, tensors) != about["sha256"]:
            raise InputError(
                f"{self.path}: layer {layer!r}: expected what was saved, got other numbers than its checksum says: "
                "it is damaged; make the part anew"
            )
        return _layer_part(self, about, tensors)


def save_part(
    path: str | Path, layers: Mapping[str, LayerPart], coverage: Coverage, *, seed: int, sample_tokens: int
) -> None:
    """Write a part, whole or not at all."""
    tensors, told = dict[str, Tensor](), list[dict[str, Any]]()
    for place, (name, part) in enumerate(layers.items()):
        own = _tensors_of(part)
        tensors |= {f"{place}.{tensor}": value for tensor, value in own.items()}
        statistics = part.statistics
        told.append(
            {
                "name": name,
                "d_in": len(statistics.raw.mean),
                "is_wide": isinstance(statistics.raw, Marginals),
                "largest_norm": statistics.norms.largest,
                "zero_rows": statistics.rows.zero_rows,
                "kept": statistics.reservoir.size,
                "sha256": tensors_checksum(name, own),
            }
        )
    about = {
        "format": FORMAT,
        "version": VERSION,
        "seed": seed,
        "sample_tokens": sample_tokens,
        "coverage": asdict(coverage),
        "layers": told,
    }
    words = json.dumps(about, sort_keys=True)
    wrote = json.dumps(as_json(provenance()), sort_keys=True)
    write_tensors(path, tensors, {"about": words, "sha256": _digest(words), "provenance": wrote})


def open_part(path: str | Path) -> PartFile:
    """A part, of which the tensors are read later. Raises InputError for anything else, and where it is damaged."""
    path, local = Path(path), copy_of(Path(path))
    with input_errors_of_saved(path, FORMAT):
        check_regular(local)
        with safe_open(local, framework="pt") as opened:
            metadata = opened.metadata() or {}
        about = parse((words := metadata.get("about", "null")).encode())
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path}: expected a part that `autopsae stats` wrote, got another file")
    if about.get("version") != VERSION:
        raise InputError(f"{path}: expected a part of version {VERSION}; make it anew with this autopsae")
    if metadata.get("sha256") != _digest(words):
        raise InputError(
            f"{path}: expected what was saved, got other words than the checksum says: it is damaged; make the "
            "part anew"
        )
    check_kind(path, about, _ABOUT)
    layers = {layer["name"]: layer for layer in about["layers"]}
    covered = about["coverage"]
    runs = tuple(Run(**run) for run in covered["runs"])
    if not runs or not layers or len(layers) < len(about["layers"]):
        raise InputError(f"{path}: expected tokens and layers, each layer once; make the part anew")
    return PartFile(
        path=path,
        local=local,
        coverage=Coverage(order=covered["order"], runs=runs, store=covered["store"], shards=covered["shards"]),
        seed=about["seed"],
        sample_tokens=about["sample_tokens"],
        layers=layers,
    )


def _digest(words: str) -> str:
    return sha256(words.encode()).hexdigest()


def _tensors_of(part: LayerPart) -> dict[str, Tensor]:
    statistics, state = part.statistics, part.statistics.reservoir.state()
    tensors = {
        f"{stream}.{name}": value.cpu()
        for stream, moments in (("raw", statistics.raw), ("normed", statistics.normed))
        for name, value in vars(moments).items()
        if isinstance(value, Tensor)
    }
    # Most bins and counters of a small part are zero.
    bins, counters = statistics.norms.counts.nonzero()[:, 0], np.flatnonzero(statistics.rows.counters)
    tensors |= {
        "norms.bins": bins,
        "norms.counts": statistics.norms.counts[bins],
        "norms.squares": statistics.norms.squares[bins],
        "rows.hashes": torch.from_numpy(statistics.rows.hashes.view(np.int64)),
        "rows.counts": torch.from_numpy(statistics.rows.counts.astype(np.int64)),
        "rows.counters": torch.from_numpy(counters),
        "rows.of_counters": torch.from_numpy(statistics.rows.counters[counters].astype(np.int64)),
        "sample.keys": torch.from_numpy(state.keys.view(np.int64)),
        "sample.places": torch.from_numpy(state.places),
        "sample.rows": state.rows.cpu(),
    }
    if part.documents is not None:
        tensors["sample.documents"] = torch.from_numpy(np.ascontiguousarray(part.documents))
    return tensors


def _layer_part(part: PartFile, about: Mapping[str, Any], tensors: dict[str, Tensor]) -> LayerPart:
    where, d_in, tokens = f"{part.path}: layer {printable(about['name'], 60)}", about["d_in"], part.coverage.tokens
    _check_layer(where, about, tensors, tokens)
    kind: type[Moments] | type[Marginals] = Marginals if about["is_wide"] else Moments
    raw, normed = (
        kind(tokens=tokens, **{name: tensors[f"{stream}.{name}"] for name in _fields(about)})
        for stream in ("raw", "normed")
    )
    norms = NormHistogram(
        counts=_spread_out(tensors["norms.counts"], tensors["norms.bins"]),
        squares=_spread_out(tensors["norms.squares"], tensors["norms.bins"]),
        largest=float(about["largest_norm"]),
    )
    counters = np.zeros(COUNTED, np.int64)
    counters[tensors["rows.counters"].numpy()] = tensors["rows.of_counters"].numpy()
    rows = RowCounts(
        tokens=tokens,
        zero_rows=about["zero_rows"],
        hashes=tensors["rows.hashes"].numpy().view(np.uint64),
        counts=tensors["rows.counts"].numpy(),
        counters=counters,
    )
    state = ReservoirState(
        keys=tensors["sample.keys"].numpy().view(np.uint64),
        places=tensors["sample.places"].numpy(),
        rows=tensors["sample.rows"],
    )
    documents = tensors.get("sample.documents")
    statistics = PartialStatistics(
        raw=raw,
        normed=normed,
        norms=norms,
        reservoir=Reservoir.of(state, about["kept"], seed=part.seed),
        rows=rows,
        sample_tokens=part.sample_tokens,
    )
    assert len(raw.mean) == d_in
    return LayerPart(statistics=statistics, documents=None if documents is None else documents.numpy())


def _spread_out(values: Tensor, bins: Tensor) -> Tensor:
    return torch.zeros(BINS, dtype=values.dtype, device="cpu").index_add_(0, bins, values)


def _fields(about: Mapping[str, Any]) -> Sequence[str]:
    return ("mean", "second" if about["is_wide"] else "scatter", "third", "fourth")


def _check_layer(where: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor], tokens: int) -> None:
    """InputError unless the tensors are those of a layer of so many tokens."""
    d_in, wholes, floats = about["d_in"], (torch.int64,), (torch.float64,)
    kept = min(tokens, about["kept"])
    bins, hashes, counters = (len(tensors.get(n, ())) for n in ("norms.bins", "rows.hashes", "rows.counters"))
    layouts = {
        f"{stream}.{name}": Layout(
            shape=(d_in, d_in) if name == "scatter" else (d_in,), dtypes=floats, finite=name in ("mean", "scatter")
        )
        for stream in ("raw", "normed")
        for name in _fields(about)
    }
    layouts |= {name: Layout(shape=(bins,), dtypes=wholes) for name in ("norms.bins", "norms.counts")}
    layouts |= {name: Layout(shape=(hashes,), dtypes=wholes) for name in ("rows.hashes", "rows.counts")}
    layouts |= {name: Layout(shape=(counters,), dtypes=wholes) for name in ("rows.counters", "rows.of_counters")}
    layouts |= {name: Layout(shape=(kept,), dtypes=wholes) for name in ("sample.keys", "sample.places")}
    layouts["norms.squares"] = Layout(shape=(bins,), dtypes=floats)
    layouts["sample.rows"] = Layout(shape=(kept, d_in), dtypes=(torch.float32, torch.float64))
    layouts["sample.documents"] = Layout(shape=(kept,), dtypes=wholes, needed=False)
    check_tensors(where, tensors, layouts)
    for name, most in (("norms.bins", BINS), ("rows.counters", COUNTED)):
        if len(tensors[name]) and not 0 <= int(tensors[name].min()) <= int(tensors[name].max()) < most:
            raise InputError(f"{where}: {name}: expected numbers under {most:,}; make the part anew")
    for name in ("norms.counts", "rows.of_counters"):
        if int(tensors[name].sum()) != tokens or bool((tensors[name] < 0).any()):
            raise InputError(f"{where}: {name}: expected counts of {tokens:,} tokens; make the part anew")
