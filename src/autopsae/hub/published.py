"""What is published of a training: the SAE, its summary, its prescription and the numbers of its diagnosis."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.diagnosis.survey import FORMAT as DIAGNOSIS
from autopsae.files import pair_files, tensors_digest
from autopsae.interop.convert import load_sae
from autopsae.provenance import add_provenance
from autopsae.reading import as_object, input_errors, parse, read_bytes
from autopsae.run.finished import SUMMARY, is_present, summary_kind, with_names_of_now
from autopsae.sae.model import SAE
from autopsae.saved import load_object, provenance_of

SUMMARY_FILE, PRESCRIPTION = "summary.json", "prescription"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A trained SAE and what is known of it."""

    sae: SAE
    """The SAE, on raw tokens."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """The content of summary.json, as `autopsae train` writes it; {} where there is none."""
    wrote: Mapping[str, Any] = field(default_factory=dict)
    """What wrote the summary, or the SAE where there is no summary; {} where nothing says it. It has no paths."""
    prescription: Prescription | None = None
    """What the SAE was born from; None where it is not sent along."""
    diagnosis: Mapping[str, Any] = field(default_factory=dict)
    """The numbers of its layer in a diagnosis (gamma, kurtosis, ...); {} where there is none."""
    trained_on: str | None = None
    """What it was trained on, in words; None where nobody says it."""
    model_name: str | None = None
    """The model that its tokens come from, as the Hub or SAELens names it; None where nobody says it."""
    hook_name: str | None = None
    """The place in that model; None where nobody says it."""

    @property
    def layer(self) -> str:
        """The name of the layer; "" where nothing says it."""
        told = self.summary.get("layer") or self.wrote.get("layer")
        if not isinstance(told, str):
            told = self.prescription.layer if self.prescription else ""
        return told


def read_published(
    folder: str | Path, prescription: Path | None = None, diagnosis: Path | None = None
) -> Published:
    """What is to be published from `folder`: that of a run, or any path that `load_sae` takes.

    prescription: the pair that `diagnose --prescriptions` wrote. diagnosis: the JSON that `diagnose --json` wrote.
    Raises InputError for a sweep, a run that diverged, a summary of another SAE, a prescription or a diagnosis of
    another layer, and for files that are damaged.
    """
    place = Path(folder)
    if is_present(place / "sweep.json"):
        raise InputError(f"{folder}: expected the folder of one SAE, got a sweep; name one of the folders in it")
    summary, described = dict[str, Any](), place / SUMMARY_FILE
    if is_present(described):
        summary = with_names_of_now(load_object(described, format=SUMMARY, kind=summary_kind))
        if summary["diverged"] is not None:
            raise InputError(f"{folder}: expected a trained SAE, got a training that diverged; name another")
    sae = load_sae(folder)
    if summary and summary.get("sae_sha256", "") not in ("", tensors_digest(sae.state_dict())):
        raise InputError(f"{described}: expected the summary of the SAE beside it, got that of another; remove it")
    beside = pair_files(place / "sae")[0]
    source = described if summary else beside if beside.is_file() else None
    published = Published(
        sae=sae,
        summary=summary,
        wrote={} if source is None else without_paths(provenance_of(source)),
        prescription=None if prescription is None else _read_prescription(prescription, sae, summary),
    )
    if diagnosis is None:
        return published
    return replace(published, diagnosis=_read_diagnosis(diagnosis, published.layer, sae.d_in))


def _read_prescription(path: Path, sae: SAE, summary: Mapping[str, Any]) -> Prescription:
    """Raises InputError where it is not the one that the SAE was born from."""
    prescription = Prescription.load(path)
    made_for = summary.get("prescription")
    born = {name: made_for.get(name) for name in prescription.made_for()} if isinstance(made_for, Mapping) else None
    if prescription.d_in != sae.d_in or (summary and born != prescription.made_for()):
        raise InputError(
            f"{path}: expected the prescription that the SAE was born from ({born or 'none'}), got one for "
            f"{prescription.made_for()}; pass that one, or none"
        )
    return prescription


def _read_diagnosis(path: Path, layer: str, d_in: int) -> Mapping[str, Any]:
    """The numbers of a layer. Raises InputError where it is not in the file."""
    with input_errors(path, "the JSON of a diagnosis", "make it anew by diagnose --json"):
        content = as_object(parse(read_bytes(path)), path)
        if content.get("format") != DIAGNOSIS:
            raise ValueError("of another format")
        layers = {str(numbers["layer"]): numbers for numbers in content["layers"]}
        if layer not in layers and len(layers) == 1 and not layer:
            layer = next(iter(layers))
        if layer not in layers or layers[layer]["d_in"] != d_in:
            raise ValueError(f"no layer {layer!r} of {d_in} dimensions in it")
    numbers: Mapping[str, Any] = layers[layer]
    return numbers


def without_paths(value: Any) -> Any:
    """The same value of JSON, in which each path is its last name alone: nobody needs the folders of a machine."""
    if isinstance(value, Mapping):
        return {name: without_paths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    if isinstance(value, str) and not value.startswith(("hf:", "saelens:")):
        return PureWindowsPath(value).name if "\\" in value else PurePath(value).name or value
    return value


@contextmanager
def keep_provenance(wrote: Mapping[str, Any]) -> Iterator[None]:
    """In this context files say that this wrote them, and nothing of the folders of this machine."""
    nothing: dict[str, Any] = {"command": None, "source": None, "settings": {}}
    with add_provenance(**{**nothing, **wrote}):
        yield
