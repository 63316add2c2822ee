"""Every kind of file that is read: made whole, and read as the library reads it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from autopsae.activations.shards import ShardWriter
from autopsae.activations.store import Activations, open_activations, open_layers
from autopsae.activations.texts import documents_in
from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.part_file import open_part
from autopsae.diagnosis.parts import collect_part
from autopsae.diagnosis.prescription import Prescription
from autopsae.features.annotations import Annotations, read_annotations
from autopsae.features.token_table import TokenTable, read_token_table
from autopsae.interop.convert import load_sae, save_sae
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import active_subspace, whiten
from autopsae.report.page.write import page_html
from autopsae.run.many import run_sweep
from autopsae.run.observer import Observer
from autopsae.run.one import run
from autopsae.run.portions import Portions
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, TopK
from autopsae.saved import checksum, tensors_checksum
from autopsae.statistics.spectrum import Spectrum
from tests.activations import layouts
from tests.faults.inputs import INPUTS
from tests.interop import formats, suites
from tests.interop.test_older import OLDEST, VERSION_5, dictionary, saelens
from tests.report import pages
from tests.run.test_damaged import PLAN, Stopped, stop
from tests.test_first_version import SAVED, X, entry


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A kind of file, or of files that belong together."""

    make: Callable[[Path], object]
    """Writes it whole into an empty folder."""
    read: Callable[[Path], Any]
    """Reads it from there; returns what was read, to be compared."""
    check: Callable[[Path], None] = lambda folder: None
    """For what was read and is not what was written: InputError or nothing, and no number that is not finite."""
    checked: bool = False
    """Whatever is changed is found: it has checksums."""
    seal: Callable[[Path], None] | None = None
    """Makes the checksums right again after the damage, so that what stands behind them is met."""


def digest(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Tensors as they can be compared: bits, not values."""
    return {
        name: (
            str(tensor.dtype),
            tuple(tensor.shape),
            hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest(),
        )
        for name, tensor in tensors.items()
    }


class NotFinite(Exception):
    """A number that is NaN or infinite came out."""


def check_finite(value: Any, where: str = "") -> None:
    """NotFinite for a number that is none, anywhere in a result."""
    if isinstance(value, Tensor):
        if not bool(value.isfinite().all()):
            raise NotFinite(where)
    elif isinstance(value, float) and not isfinite(value):
        raise NotFinite(where)
    elif isinstance(value, dict):
        for name, inner in value.items():
            check_finite(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            check_finite(inner, f"{where}[{number}]")


# Activations.


def source(folder: Path, make: Callable[[Path], Path]) -> Path:
    """Where a layout put what is to be opened: the folder itself, or the one thing in it."""
    return (
        folder / str(make.__name__)
        if make.__name__ in IN_THEIR_FOLDER
        else next(visible(folder), folder / "missing")
    )


IN_THEIR_FOLDER = {"numpy_shards", "archive_shards", "safetensors_shards", "harvest_folder", "torch_shards",
                   "parquet_folder", "bionemo", "bionemo_columns", "saev"}  # fmt: skip
"""Layouts that are a folder, which then needs a name that is always the same."""


def visible(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def make_activations(make: Callable[[Path], Path], folder: Path) -> None:
    inner = folder / make.__name__ if make.__name__ in IN_THEIR_FOLDER else folder
    inner.mkdir(exist_ok=True)
    make(inner)


def read_activations(make: Callable[[Path], Path], folder: Path) -> Any:
    return digest({name: torch.cat(list(layer)) for name, layer in open_layers(source(folder, make)).items()})


def check_activations(make: Callable[[Path], Path], folder: Path) -> None:
    for layer in open_layers(source(folder, make)).values():
        check_finite(diagnose(layer.take(200), d_sae=8, k=2).to_dict())


def of_activations(make: Callable[[Path], Path]) -> Subject:
    own = make is layouts.harvest_folder
    return Subject(
        make=partial(make_activations, make),
        read=partial(read_activations, make),
        check=partial(check_activations, make),
        checked=own,
    )


REQUEST = {"model": "m", "tokens": 300}


def begin_harvest(folder: Path) -> None:
    writer = ShardWriter(folder / "h", request=REQUEST, shard_tokens=100)
    for number in range(3):
        writer.add({"x": layouts.X[number * 60 : number * 60 + 60]}, {"document": torch.full((60,), number)})


def finish_harvest(folder: Path) -> Any:
    """The tokens of a harvest that goes on to its end."""
    writer = ShardWriter(folder / "h", request=REQUEST, shard_tokens=100)
    if not writer.complete:
        for number in range(writer.batches_done, 5):
            writer.add({"x": layouts.X[number * 60 : number * 60 + 60]}, {"document": torch.full((60,), number)})
        writer.finish()
    return digest({name: torch.cat(list(layer)) for name, layer in open_layers(folder / "h").items()})


def make_padded(kind: str, folder: Path) -> None:
    np.save(folder / "x.npy", layouts.BATCHED.numpy())
    lengths = np.arange(layouts.SEQUENCES) % layouts.LENGTH + 1
    given = lengths if kind.startswith("lengths") else np.arange(layouts.LENGTH) < lengths[:, None]
    place = folder / kind
    match place.suffix:
        case ".npy":
            np.save(place, given)
        case ".npz":
            np.savez(place, given)
        case ".pt":
            torch.save(torch.from_numpy(given), place)
        case ".txt":
            np.savetxt(place, lengths, fmt="%d")


def open_padded(kind: str, folder: Path) -> Activations:
    if kind.startswith("lengths"):
        return open_activations(folder / "x.npy", lengths=folder / kind)
    return open_activations(folder / "x.npy", mask=folder / kind)


def read_padded(kind: str, folder: Path) -> Any:
    return digest({"x": torch.cat(list(open_padded(kind, folder)))})


def check_padded(kind: str, folder: Path) -> None:
    check_finite(diagnose(open_padded(kind, folder).take(200), d_sae=8, k=2).to_dict())


# SAEs.


def read_sae(name: str, folder: Path) -> Any:
    sae = load_sae(folder / name)
    return digest(dict(sae.state_dict())), repr(sae.sparsity), sae.scale, sae.layer_norm


@torch.no_grad()
def check_sae(name: str, folder: Path) -> None:
    sae = load_sae(folder / name)
    x = torch.randn(4, sae.d_in, generator=torch.Generator().manual_seed(0))
    check_finite(sae(x), "reconstruction")


def of_sae(make: Callable[[Path], Any], name: str, **more: Any) -> Subject:
    return Subject(make=make, read=partial(read_sae, name), check=partial(check_sae, name), **more)


def suite(name: str) -> Subject:
    """An SAE of a public suite; its path in the folder is always the same."""
    made: dict[str, str] = {
        "openai": "x/6.pt",
        "saev": "x/sae.pt",
        "qwen_scope": "SAE-Res-Qwen3-1B-Base-W1K-L0_3/layer3.sae.pt",
        "hook_z": "x/gpt2.pt",
        "goodfire": "x/l19.pth",
    }
    return of_sae(suites.ALL[name], made.get(name, "x"))


def copied(names: list[str], folder: Path) -> None:
    for name in names:
        shutil.copy(SAVED / name, folder / name)


def regular(path: Path) -> bool:
    """No pipe and no device, which would be read without end."""
    return path.is_file() and not path.is_symlink()


def seal_pair(folder: Path) -> None:
    """Checksums of a pair as they should be; of whatever else lies there, nothing."""
    for described in folder.glob("*.json"):
        stored = described.with_suffix(".safetensors")
        if not (regular(described) and regular(stored)):
            continue
        try:
            content = json.loads(described.read_text())
            content["sha256"] = hashlib.sha256(stored.read_bytes()).hexdigest()
            rest = {name: v for name, v in content.items() if name not in ("format", "version", "content_sha256")}
            content["content_sha256"] = checksum(rest)
            described.write_text(json.dumps(content))
        except Exception:  # whatever the damage does to it, it is then not sealed
            continue


def seal_run(folder: Path) -> None:
    """The same for the JSON files and the checkpoints of a run."""
    for path in (path for path in folder.rglob("*") if regular(path)):
        try:
            if path.suffix == ".json":
                content = json.loads(path.read_text())
                rest = {n: v for n, v in content.items() if n not in ("format", "version", "content_sha256")}
                path.write_text(json.dumps({**content, "content_sha256": checksum(rest)}))
            elif path.name.startswith("checkpoint"):
                data = path.read_bytes()
                length = int.from_bytes(data[:8], "little")
                words = json.loads(data[8 : 8 + length])["__metadata__"]["about"]
                tensors = load_file(path)
                save_file(tensors, path, {"about": words, "sha256": tensors_checksum(words, tensors)})
        except Exception:  # whatever the damage does to it, it is then not sealed
            continue


# Parts of statistics.


def make_part(folder: Path) -> None:
    save_file({"hs1": X.float(), "hs2": X[:, :3].float()}, folder / "shard.safetensors")
    collect_part([folder / "shard.safetensors"], folder / "p.safetensors", sample_tokens=50)
    (folder / "shard.safetensors").unlink()


def read_part(folder: Path) -> Any:
    part = open_part(folder / "p.safetensors")
    read = []
    for layer in part.layers:
        statistics = part.read(layer).statistics.statistics()
        of = {name: getattr(statistics.raw, name) for name in ("mean", "scatter", "third", "fourth")}
        read.append((layer, digest({**of, "sample": statistics.sample}), statistics.rows.repeats()))
    return part.coverage, part.seed, read


def seal_part(folder: Path) -> None:
    """Its checksums made right again."""
    path = folder / "p.safetensors"
    try:
        data = path.read_bytes()
        words = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["about"]
        tensors, about = load_file(path), json.loads(words)
        for number, layer in enumerate(about["layers"]):
            own = {n.removeprefix(f"{number}."): t for n, t in tensors.items() if n.startswith(f"{number}.")}
            layer["sha256"] = tensors_checksum(layer["name"], own)
        words = json.dumps(about, sort_keys=True)
        save_file(tensors, path, {"about": words, "sha256": hashlib.sha256(words.encode()).hexdigest()})
    except Exception:  # whatever the damage does to it, it is then not sealed
        return


# Our own pairs, runs and sweeps.

MOST = Spectrum.of(torch.cov(X.T))


def prescription(kind: str, folder: Path) -> None:
    remedies = {
        "whiten": whiten(MOST, X.mean(dim=0), alpha=0.5),
        "asi": active_subspace(MOST, X.mean(dim=0), rank=2),
    }
    remedy = remedies[kind]
    made = Prescription(remedy=remedy, reason="a test", layer="hs3", d_sae=8, sparsity=TopK(k=2), scale=1.5)
    made.save(folder / "p")


def read_prescription(name: str, folder: Path) -> Any:
    found = Prescription.load(folder / name)
    remedy = found.remedy
    parts = {name: getattr(remedy.affine, name) for name in ("center", "linear", "inverse")}
    parts["subspace"] = remedy.subspace
    words = (remedy.name, remedy.instruction, found.reason, found.layer, found.d_sae, found.sparsity, found.scale)
    return words, digest({part: tensor for part, tensor in parts.items() if tensor is not None})


def check_prescription(name: str, folder: Path) -> None:
    found = Prescription.load(folder / name)
    check_finite(found.remedy.affine(X[:5].to(found.b_dec.dtype)), "tokens")


SAES = {
    "topk": lambda: formats.an_sae(),
    "batch_topk": lambda: formats.an_sae(BatchTopK(k=3)),
    "jumprelu": lambda: formats.an_sae(JumpReLU(), affine=Affine(center=torch.ones(formats.D_IN), scale=2.0)),
}


def save_other(to: str, folder: Path) -> None:
    save_sae(formats.an_sae(), folder / "x", to=to)


def save_own(kind: str, folder: Path) -> None:
    SAES[kind]().save(folder / "sae")


def make_run(kind: str, folder: Path) -> None:
    """A run or a sweep that was broken off, or has ended."""
    if kind == "finished run":
        run(entry("m"), X[:300], X[300:], folder / "out", plan=PLAN)
    elif kind == "finished sweep":
        run_sweep([entry("a"), entry("b")], X[:300], X[300:], folder / "out", plan=PLAN)
    else:
        try:
            if kind == "run":
                run(entry("m"), X[:300], X[300:], folder / "out", plan=PLAN, observer=Observer(on_records=stop))
            portions = Portions(groups=[["a"], ["b"]], bytes_at_once=0)

            def stop_b(records: dict[str, Any]) -> None:
                if "b" in records:
                    stop(records)

            entries = [entry("a"), entry("b")]
            run_sweep(
                entries,
                X[:300],
                X[300:],
                folder / "out",
                plan=PLAN,
                portions=portions,
                observer=Observer(on_records=stop_b),
            )
        except Stopped:
            return


def read_run(kind: str, folder: Path) -> Any:
    out = folder / "out"
    if "run" in kind:
        result = run(entry("m"), X[:300], X[300:], out, plan=PLAN, resume=True)
    else:
        result = run_sweep([entry("a"), entry("b")], X[:300], X[300:], out, plan=PLAN, resume=True)
    check_finite(result)
    folders = [] if "finished" in kind else [out] if kind == "run" else [out / "a", out / "b"]
    return result, [digest(dict(SAE.load(folder / "sae").state_dict())) for folder in folders]


# Texts and networks.

TEXTS = ["one two", "drei, vier", "五 🙂", "six\nseven", "x" * 200]


def make_texts(name: str, folder: Path) -> None:
    lines = "".join(json.dumps({"text": text, "n": 1}, ensure_ascii=False) + "\n" for text in TEXTS)
    (folder / name).write_text(lines if name.endswith("jsonl") else "\n\n".join(TEXTS), encoding="utf-8")


def read_texts(name: str, folder: Path) -> Any:
    documents = list(documents_in(folder / name))
    for document in documents:
        document.encode()
    return documents


def make_gguf(folder: Path) -> None:
    from tests.activations.test_presets import tiny_gguf

    tiny_gguf(folder / "tiny.gguf")


def read_gguf(folder: Path) -> Any:
    from autopsae.activations.presets import load_model

    loaded = load_model(str(folder / "tiny.gguf"))
    words = loaded.tokenizer("a b", add_special_tokens=False)["input_ids"]
    return digest({name: parameter.data for name, parameter in loaded.model.named_parameters()}), words


def make_annotations(name: str, folder: Path) -> None:
    rows = [(n, start, start + 3, f"concept {start % 2}") for n in range(30) for start in range(0, 12, 4)]
    Annotations.of(rows, domains=["concept 0"]).save(folder / name)


def read_spans(name: str, folder: Path) -> Any:
    return read_annotations(folder / name).rows()


def make_token_table(name: str, folder: Path) -> None:
    place = np.arange(60) % 12
    TokenTable(documents=np.arange(60) // 12, starts=place, ends=place + 1, texts=("a",) * 60).save(folder / name)


def read_tokens_of(name: str, folder: Path) -> Any:
    table = read_token_table(folder / name)
    return table.documents.tolist(), table.starts.tolist(), table.ends.tolist(), table.texts


def make_reported(kind: str, folder: Path) -> None:
    """A result that `report` reads."""
    path = folder / "d.json"
    if kind == "diagnosis":
        pages.save_diagnosis(path)
    elif kind == "features":
        pages.save_features(path, folder / "c.json")
        (folder / "c.json").unlink()
    else:
        pages.save_autopsy(path)
        (folder / ("d.csv" if kind == "autopsy" else "d.json")).unlink()


def read_reported(kind: str, folder: Path) -> Any:
    return page_html([folder / ("d.csv" if kind == "latents" else "d.json")])


SUBJECTS: dict[str, Subject] = {
    **{f"activations {make.__name__}": of_activations(make) for make in layouts.LAYOUTS},
    "harvest going on": Subject(make=begin_harvest, read=finish_harvest, checked=True),
    **{
        f"padding {kind}": Subject(
            make=partial(make_padded, kind), read=partial(read_padded, kind), check=partial(check_padded, kind)
        )
        for kind in ("lengths.npy", "lengths.npz", "lengths.txt", "mask.npy", "mask.pt")
    },
    **{f"sae {name}": suite(name) for name in suites.ALL},
    **{f"sae {to}": of_sae(partial(save_other, to), "x") for to in ("saelens", "sparsify", "dictionary_learning")},
    "sae saelens 5": of_sae(lambda folder: saelens(folder / "x", VERSION_5), "x"),
    "sae saelens oldest": of_sae(lambda folder: saelens(folder / "x", OLDEST), "x"),
    "sae dictionary old": of_sae(
        lambda folder: dictionary(folder / "x", "AutoEncoderTopK", missing=("threshold",)), "x"
    ),
    **{f"own sae {kind}": of_sae(partial(save_own, kind), "sae", checked=True) for kind in SAES},
    **{f"own sae {kind} sealed": of_sae(partial(save_own, kind), "sae", seal=seal_pair) for kind in SAES},
    "own sae version 1": of_sae(partial(copied, ["jumprelu.json", "jumprelu.safetensors"]), "jumprelu"),
    **{
        f"own prescription {kind}{' sealed' * sealed}": Subject(
            make=partial(prescription, kind),
            read=partial(read_prescription, "p"),
            check=partial(check_prescription, "p"),
            checked=not sealed,
            seal=seal_pair if sealed else None,
        )
        for kind in ("whiten", "asi")
        for sealed in (False, True)
    },
    "own prescription version 1": Subject(
        make=partial(copied, ["whiten_0.5.json", "whiten_0.5.safetensors"]),
        read=partial(read_prescription, "whiten_0.5"),
        check=partial(check_prescription, "whiten_0.5"),
    ),
    **{
        f"{kind}{' sealed' * sealed}": Subject(
            make=partial(make_run, kind),
            read=partial(read_run, kind),
            checked=not sealed,
            seal=seal_run if sealed else None,
        )
        for kind in ("run", "sweep", "finished run", "finished sweep")
        for sealed in (False, True)
    },
    "part": Subject(make=make_part, read=read_part, checked=True),
    "part sealed": Subject(make=make_part, read=read_part, seal=seal_part),
    **{name: Subject(make=make, read=read) for name, (make, read) in INPUTS.items()},
    "texts .txt": Subject(make=partial(make_texts, "t.txt"), read=partial(read_texts, "t.txt")),
    "texts .jsonl": Subject(make=partial(make_texts, "t.jsonl"), read=partial(read_texts, "t.jsonl")),
    **{
        f"report of {kind}": Subject(make=partial(make_reported, kind), read=partial(read_reported, kind))
        for kind in ("diagnosis", "autopsy", "latents", "features")
    },
    "gguf": Subject(make=make_gguf, read=read_gguf),
    **{
        f"annotations {name}": Subject(make=partial(make_annotations, name), read=partial(read_spans, name))
        for name in ("a.csv", "a.parquet")
    },
    **{
        f"token table {name}": Subject(make=partial(make_token_table, name), read=partial(read_tokens_of, name))
        for name in ("t.csv", "t.parquet")
    },
}
"""By the names under which the table shows them."""

__all__ = ["SUBJECTS", "InputError", "NotFinite", "Subject"]
