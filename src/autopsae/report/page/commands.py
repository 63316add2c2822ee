"""The commands that act on a result, from what its JSON says of the command that wrote it."""

from collections.abc import Mapping
from shlex import quote
from typing import Any

from autopsae.activations.names import file_names
from autopsae.defaults import ACCEPTABLE, AT_TOKENS, LR, STEPS
from autopsae.report.page.parts import Code
from autopsae.sae.sparsity import SPARSITIES

_USUAL = {"at_tokens": AT_TOKENS, "acceptable": ACCEPTABLE, "lr": LR, "steps": STEPS, "repeated": "keep", "seed": 0}
_USUAL |= {"batch_size": 8, "sparsity": "topk", "batch_tokens": 4096}
_OF_TRAINING = ("d_sae", "sparsity", "k", "bandwidth", "start", "lr", "steps", "batch_tokens")
_FOLDER = "prescriptions"
_ACTIVATIONS = "activations"


def shell(verb: str, *words: str, options: Mapping[str, Any]) -> str:
    """A command line of autopsae. Options that are not given, empty or False are left out."""
    parts = [f"autopsae {verb}", *(quote(word) for word in words)]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            parts.append(flag)
        elif value is not None and value is not False and value != [] and value != "":
            joined = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            parts.append(f"{flag} {quote(joined)}")
    return " ".join(parts)


def settings_of(wrote: Mapping[str, Any], command: str) -> tuple[str, dict[str, Any]] | None:
    """(source, settings) of the command that wrote a result; None where Python wrote it, or another command."""
    source, settings = wrote.get("source"), wrote.get("settings")
    if wrote.get("command") != command or not isinstance(source, str) or not isinstance(settings, dict):
        return None
    return source, {str(name): value for name, value in settings.items() if _USUAL.get(name) != value}


def act_on_layer(layer: Mapping[str, Any], wrote: Mapping[str, Any]) -> tuple[Code, ...]:
    """How to train on a layer as it is prescribed: by the commands of the shell where the diagnosis is one of them,
    in Python otherwise.
    """
    known = settings_of(wrote, "diagnose")
    name = str(layer["layer"])
    if known is None:
        return (_python(layer),)
    source, settings = known
    is_model = not wrote.get("digests")
    named = {} if "," in name else {"layers": name}
    rest = {key: value for key, value in settings.items() if key not in ("layers", "plan", "device")}
    kept = {"keep": _ACTIVATIONS} if is_model else {}
    first = shell("diagnose", source, options={**rest, **named, **kept, "prescriptions": _FOLDER})
    training = {key: settings[key] for key in _OF_TRAINING if key in settings}
    if settings.get("sparsity") == "relu":
        training["l1"] = "L1"
    [file] = file_names([name]).values()
    of_source = {key: settings.get(key) for key in ("lengths", "mask")}
    second = shell(
        "train",
        _ACTIVATIONS if is_model else source,
        options={
            "layer": name,
            **of_source,
            "prescription": f"{_FOLDER}/{file}",
            **training,
            "out": f"sae-{file}",
        },
    )
    what = "Writes the prescription" + (" and the activations" if is_model else "")
    coefficient = "; put your L1 coefficient in the place of L1" if "l1" in training else ""
    return (
        Code(what=f"{what}.", lines=first),
        Code(what=f"Trains an SAE on the layer as it is prescribed{coefficient}.", lines=second),
    )


def _python(layer: Mapping[str, Any]) -> Code:
    settings = {key: value for key, value in layer["sparsity"].items() if key != "name"}
    known = SPARSITIES.get(layer["sparsity"]["name"])
    sparsity = known.__name__ if known else str(layer["sparsity"]["name"])
    arguments = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    lines = [
        "import autopsae",
        "",
        f"# tokens: the activations of this layer, [tokens, {layer['d_in']}]",
        f"sparsity = autopsae.sae.{sparsity}({arguments})",
        f"diagnosis = autopsae.diagnose(tokens, d_sae={layer['d_sae']}, sparsity=sparsity)",
        "prescription = diagnosis.prescription",
        "sae = autopsae.born(prescription)",
        f"config = autopsae.TrainConfig(steps={STEPS}, lr={LR:g}, **prescription.training)",
        "autopsae.train(sae, tokens, config)",
    ]
    return Code(what="Trains an SAE on the layer as it is prescribed.", lines="\n".join(lines), language="python")


def act_on_trial(trial: Mapping[str, Any]) -> tuple[Code, ...]:
    """How to train by the prescription of a trial, in Python."""
    config = (
        f"steps={trial['for_steps']}, lr={trial['lr'] / trial['age']:g}, batch_tokens={trial['for_batch_tokens']}"
    )
    lines = [
        "# result: what autopsae.trial.trial(...) returned; tokens: the activations of this layer",
        "sae = autopsae.born(result.prescription)",
        f"config = autopsae.TrainConfig({config}, **result.prescription.training)",
        "autopsae.train(sae, tokens, config)",
    ]
    return (Code(what=f"Trains an SAE under {trial['chosen']}.", lines="\n".join(lines), language="python"),)


def act_on_run(folder: str, wrote: Mapping[str, Any]) -> tuple[Code, ...]:
    """How to look into a trained SAE. folder: of its run."""
    known = settings_of(wrote, "train")
    sae = f"{folder}/sae"
    if known is None:
        lines = f"import autopsae\n\nsae = autopsae.SAE.load({sae!r})\nprint(autopsae.autopsy(sae, tokens))"
        return (Code(what="Says why latents are dead.", lines=lines, language="python"),)
    source, settings = known
    of_source = {key: settings.get(key) for key in ("layer", "lengths", "mask")}
    line = shell("autopsy", sae, source, options={**of_source, "json": "autopsy.json"})
    return (Code(what="Says why latents are dead.", lines=line),)


def act_on_autopsy(content: Mapping[str, Any], wrote: Mapping[str, Any]) -> tuple[Code, ...]:
    """How to cure what an autopsy found."""
    known = settings_of(wrote, "autopsy")
    if known is None or not isinstance(known[1].get("sae"), str):
        return ()
    source, settings = known
    sae = str(settings.pop("sae"))
    how = ": the advice in the findings says how it is used" if content["findings"] else ""
    cure = Code(
        what="Writes what the next SAE should start from" + how + ".",
        lines=shell("autopsy", sae, source, options={**settings, "prescription": "cure"}),
    )
    if not content["wake_on_recentring"]:
        return (cure,)
    woken = f"{content['wake_on_recentring']:,} latents would fire if each were re-centred alone"
    return (
        cure,
        Code(
            what=f"Writes the SAE with its dead latents re-centred; {woken}.",
            lines=shell("autopsy", sae, source, options={**settings, "recentre": "recentred"}),
        ),
    )


def show_latent(latent: int, concept: str, wrote: Mapping[str, Any]) -> tuple[Code, ...]:
    """How to see where the latent of a concept fires."""
    known = settings_of(wrote, "features")
    if known is None or not isinstance(known[1].get("sae"), str):
        return ()
    source, settings = known
    kept = (
        "text",
        "dataset",
        "images",
        "sequences",
        "context",
        "tokens",
        "token_table",
        "layer",
        "lengths",
        "mask",
    )
    options = {"latent": latent, **{key: settings[key] for key in kept if key in settings}}
    line = shell("features", str(settings["sae"]), source, options=options)
    return (Code(what=f"Shows where latent {latent}, the best for {concept}, fires.", lines=line),)
