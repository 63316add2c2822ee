"""The model card of a published SAE: what it was trained on, what was measured, and how it is loaded."""

import re
from html import escape
from typing import Any

from autopsae.arrays import InputError
from autopsae.hub.published import Published
from autopsae.version import version
from autopsae.words import fvu_text, printable

TAGS = ["sparse-autoencoder", "sae", "interpretability", "autopsae"]


def model_card(
    published: Published, repository: str, *, license: str | None = None, in_saelens: bool = True
) -> str:
    """README.md of a repository: a header that the Hub reads, and sections of Markdown. Every text out of the data
    is escaped.

    repository: its name, `owner/name`. license: as the Hub names licences (mit, apache-2.0); None for none.
    in_saelens: whether the folder `saelens` is there too.

    Raises InputError for a licence that is no name.
    """
    if license is not None and not re.fullmatch(r"[a-z0-9.-]{1,60}", license):
        raise InputError(f"license: expected a name of the Hub, such as mit or apache-2.0, got {license!r}")
    sae = published.sae
    kind = f"{sae.sparsity.name}" + (f", k = {sae.sparsity.l0}" if sae.sparsity.l0 else "")
    layer = f" of the layer {_code(published.layer)}" if published.layer else ""
    parts = [
        _header(published, license, in_saelens=in_saelens),
        f"# {_text(repository.split('/')[-1])}",
        f"A sparse autoencoder (SAE) with {sae.d_sae:,} latents ({kind}) for activations{layer} with {sae.d_in:,} "
        "dimensions. It takes raw activations.",
        _table("What it was trained on", _training(published)),
        _table("What was measured", _measurements(published)),
        _prescription(published),
        _how_to_load(repository, in_saelens=in_saelens),
        _table("Versions", _versions(published)),
        "autopsae made this page from the files of the training.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(published: Published, license: str | None, *, in_saelens: bool) -> str:
    tags = [*TAGS, *(["saelens"] if in_saelens else [])]
    lines = ["---", "library_name: autopsae", "tags:", *(f"- {tag}" for tag in tags)]
    model = published.model_name
    lines += [f"base_model: {model}"] if model and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model) else []
    return "\n".join([*lines, *([f"license: {license}"] if license else []), "---"])


def _training(published: Published) -> dict[str, str]:
    """Names and values, for a table; {} where the files do not say."""
    summary, wrote = published.summary, published.wrote
    told = {
        "in words": _text(published.trained_on or ""),
        "model": _code(published.model_name) if published.model_name else "",
        "place in the model": _code(published.hook_name) if published.hook_name else "",
    }
    told = {name: value for name, value in told.items() if value}
    if not summary:
        return told or {"": "The files do not say on what it was trained."}
    training = summary["training"]
    rows = told | {
        "activations": _code(wrote["source"]) if wrote.get("source") else "",
        "layer": _code(published.layer) if published.layer else "",
        "tokens that were trained on": _count(summary.get("training_tokens")),
        "tokens that were held out": _count(summary.get("held_out_tokens")),
        "steps": _count(summary.get("steps")),
        "tokens per step": _count(training.get("batch_tokens")),
        "learning rate": f"{training['lr']:g}" if training.get("lr") else "",
        "seed": str(summary.get("seed", "")),
    }
    return {name: value for name, value in rows.items() if value}


def _measurements(published: Published) -> dict[str, str]:
    summary, diagnosis = published.summary, published.diagnosis
    gamma = diagnosis.get("gamma")
    rows = {
        "gamma of the layer (mean over spread, after LayerNorm)": (
            f"{gamma:.3g}" if isinstance(gamma, float) else "not recorded (`autopsae diagnose` measures it)"
        )
    }
    if not summary:
        return rows
    tokens = f"on {summary.get('dead_tokens', summary.get('held_out_tokens', 0)):,} held-out tokens"
    rows |= {
        "dead latents": f"{summary['dead']:.1%} {tokens} ({summary['dead_by_relu']:.1%} never positive, "
        f"{summary['dead_by_topk']:.1%} positive but never selected)",
        "dead before training": f"{summary['birth']['dead']:.1%}",
        "dead on more tokens": _forecast(summary),
        "error (raw FVU, the unexplained share of the variance)": fvu_text(summary["fvu_raw"]),
        "latents that fire on a token (L0)": f"{summary['l0']:.1f}",
    }
    return {name: value for name, value in rows.items() if value}


def _forecast(summary: Any) -> str:
    expected, interval = summary.get("dead_forecast"), summary.get("dead_forecast_interval")
    if not isinstance(expected, float) or not interval:
        return ""
    return (
        f"{expected:.1%} ({interval[0]:.1%} to {interval[1]:.1%}) expected on {summary['dead_forecast_tokens']:,}"
    )


def _prescription(published: Published) -> str:
    prescription = published.prescription
    if prescription is None:
        made_for = published.summary.get("prescription")
        remedy = made_for.get("remedy") if isinstance(made_for, dict) else published.summary.get("start")
        return f"## How it was born\n\nIts start was {_code(remedy)}." if remedy else ""
    return (
        f"## How it was born\n\n{_text(prescription.instruction).capitalize()}: "
        f"{_text(prescription.reason)}.\n\n`prescription.json` and `prescription.safetensors` hold this "
        "prescription; `autopsae train --prescription` starts another SAE from it."
    )


def _how_to_load(repository: str, *, in_saelens: bool) -> str:
    ours = f"""## How to load it

```python
import autopsae

sae = autopsae.load_sae("hf:{repository}")
codes = sae.encode(activations)  # [tokens, d_in] to [tokens, d_sae]
```"""
    if not in_saelens:
        return ours + "\n\nSAELens has no SAE of this kind."
    return (
        ours
        + f"""

In SAELens:

```python
from sae_lens import SAE

sae = SAE.from_pretrained("{repository}", "saelens")
```"""
    )


def _versions(published: Published) -> dict[str, str]:
    told = {name: published.wrote.get(name) for name in ("autopsae", "torch", "date")}
    names = {"autopsae": "autopsae that trained it", "torch": "PyTorch", "date": "day of the training"}
    rows = {names[name]: _text(value) for name, value in told.items() if isinstance(value, str)}
    return {**rows, "autopsae that sent it": version()}


def _table(title: str, rows: dict[str, str]) -> str:
    if [*rows] == [""]:
        return f"## {title}\n\n{rows['']}"
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _code(value: object) -> str:
    """A name out of the data, as HTML that neither Markdown nor a table can end."""
    return f"<code>{_text(value)}</code>"


def _text(value: object) -> str:
    """A text out of the data, in which nothing is HTML or Markdown."""
    marked = escape(printable(value, 600), quote=False)
    return "".join(f"&#{ord(c)};" if c in "\\`*_{}[]#|!~$" else c for c in marked)
