"""`--config FILE`: options from a JSON object, or those of a run, from its summary.json; and the other way, the
settings that results record.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stderr
from dataclasses import asdict, is_dataclass
from io import StringIO
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from autopsae.arrays import InputError
from autopsae.cli.options.train import TrainOptions
from autopsae.cli.parsing import Options, is_recorded, nearest, option_types, parse_options, with_values
from autopsae.provenance import PROVENANCE, add_provenance
from autopsae.reading import as_object, input_errors, parse, read_bytes
from autopsae.training.bias import BIASES, OLD_BIAS_RATE
from autopsae.words import show


def settings_of(options: Any) -> dict[str, Any]:
    """The settings of a verb as JSON, by the names of the options; not where results are written."""
    hints, settings = option_types(type(options)), dict[str, Any]()
    for name, value in vars(options).items():
        if is_dataclass(value):
            settings |= settings_of(value)
        elif is_recorded(hints[name]):
            settings[name] = _as_json(value)
    return settings


def with_config(verb: str, words: Sequence[str], options: Options) -> Options:
    """The options with those of --config, where it is given; the words win. Raises InputError as `read_config`, and
    SystemExit for a value that an option does not take.
    """
    if not isinstance(options, TrainOptions) or options.config is None:
        return options
    return parse_options(verb, words, with_values(options, read_config(options.config)))


def add_settings(verb: str, options: Options) -> AbstractContextManager[None]:
    """A context in which results say which verb made them, of what, with which settings."""
    settings = settings_of(options)
    return add_provenance(command=verb, source=settings.pop("source", None), settings=settings)


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def read_config(path: Path) -> dict[str, Any]:
    """Values of the options of `train` by name, as they are given to `parsing.parse_options`.

    Raises InputError for a file that is no JSON object, a name that there is not, a value of another type, and the
    summary of a run that an earlier version began, which did not record its settings.
    """
    with input_errors(path, "a JSON object of options, or the summary.json of a run", "correct it"):
        content = as_object(parse(read_bytes(path)), path)
    settings = _of_a_run(path, content) if {"format", "training", PROVENANCE} & {*content} else content
    hints = {
        name: hint for name, hint in option_types(TrainOptions).items() if is_recorded(hint) and name != "source"
    }
    for name in settings:
        if name not in hints:
            raise InputError(
                f"{path}: {show(name)}: expected options of train, as with --config; the nearest is "
                f"{nearest(name, [*hints])!r}"
            )
    given = {name: value for name, value in settings.items() if value != []}  # as if it were not there
    return {name: _value(path, name, hints[name], value) for name, value in given.items()}


def _of_a_run(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    wrote = content.get(PROVENANCE)
    settings = wrote.get("settings") if isinstance(wrote, dict) and wrote.get("command") == "train" else None
    if not isinstance(settings, dict):
        raise InputError(
            f"{path}: expected the settings of a run of `autopsae train`, got a file without any; give the options "
            "as a JSON object"
        )
    settings = {name: value for name, value in settings.items() if name != "source"}
    rate = settings.pop(OLD_BIAS_RATE, None)  # runs of earlier versions record it
    if rate is not None:
        raise InputError(
            f"{path}: expected settings of this version, got {OLD_BIAS_RATE} = {show(rate)}; leave it out of the "
            "file and pass --bias (0 is frozen, a tenth of --lr is slow), or set Bias(lr_fraction=...) in Python"
        )
    return _of_a_member(settings, content) if isinstance(content.get("training"), dict) else settings


def _of_a_member(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the one value that this member of a sweep has where the command had several."""
    training, start = summary["training"], summary.get("start")
    penalty = training.get("penalty")
    own = {"lr": training.get("lr"), "seed": summary.get("seed"), "init": start, "alpha": summary.get("alpha")}
    own["bias"] = next((name for name, bias in BIASES.items() if asdict(bias) == training.get("bias")), None)
    own["l1"] = penalty.get("coefficient") if isinstance(penalty, dict) else None
    several = {name for name, value in settings.items() if isinstance(value, list) and len(value) > 1}
    own_settings = {**settings, **{name: value for name, value in own.items() if name in several}}
    # What goes with another start alone is refused beside this one.
    if "init" in several:
        own_settings |= {"alpha": own_settings.get("alpha") if start == "whiten" else []}
        own_settings |= {"rank": own_settings.get("rank") if start == "asi" else None}
    return own_settings


def _value(path: Path, name: str, hint: Any, value: Any) -> Any:
    """A value of JSON, read as the same word of the command line is."""
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if inner is bool or isinstance(value, bool):
        if inner is bool and isinstance(value, bool):
            return value
        expected = "true or false" if inner is bool else "no truth value"
        raise InputError(f"{path}: {name}: expected {expected}, got {show(value)}; correct it there")
    word = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        with redirect_stderr(StringIO()):
            return tyro.cli(hint, args=[word], console_outputs=False)
    except SystemExit as error:
        raise InputError(
            f"{path}: {name}: expected {_describe_kind(hint)}, got {show(value)}; correct it there"
        ) from error


def _describe_kind(kind: Any) -> str:
    """What a value may be, in words."""
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return " or ".join("null" if one is NoneType else _describe_kind(one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    if get_origin(kind) is Annotated:
        inner, *marks = get_args(kind)
        metavar = next((mark.metavar for mark in marks if isinstance(mark, PrimitiveConstructorSpec)), None)
        return metavar or _describe_kind(inner)
    return {int: "a whole number", float: "a number"}.get(kind, "text")
