"""The words of the command line as the options of a verb. Nothing heavy is imported here."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import field, fields, is_dataclass, make_dataclass, replace
from difflib import get_close_matches
from io import StringIO
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import Positional, Suppress, arg, subcommand

from autopsae.cli.blanks import join_lists
from autopsae.cli.help_text import as_paragraphs, field_texts, fit_output
from autopsae.cli.options.autopsy import AutopsyOptions
from autopsae.cli.options.convert import ConvertOptions
from autopsae.cli.options.diagnose import DiagnoseOptions
from autopsae.cli.options.features import FeaturesOptions
from autopsae.cli.options.harvest import HarvestOptions
from autopsae.cli.options.hub import PullOptions, PushOptions
from autopsae.cli.options.kinds import Unrecorded, Unshown
from autopsae.cli.options.merge import MergeOptions
from autopsae.cli.options.report import ReportOptions
from autopsae.cli.options.stats import StatsOptions
from autopsae.cli.options.train import TrainOptions

Options = (
    AutopsyOptions
    | ConvertOptions
    | DiagnoseOptions
    | FeaturesOptions
    | HarvestOptions
    | MergeOptions
    | PullOptions
    | PushOptions
    | ReportOptions
    | StatsOptions
    | TrainOptions
)

VERBS: dict[str, type[Options]] = {
    "autopsy": AutopsyOptions,
    "convert": ConvertOptions,
    "diagnose": DiagnoseOptions,
    "features": FeaturesOptions,
    "harvest": HarvestOptions,
    "merge": MergeOptions,
    "pull": PullOptions,
    "push": PushOptions,
    "report": ReportOptions,
    "stats": StatsOptions,
    "train": TrainOptions,
}
"""The options of each verb; the function of the same name in the module of the same name takes them."""

_ABOUT = """How many latents of a sparse autoencoder are born dead on a layer, why, and what to change.

`autopsae VERB --help` shows the options of a verb, `autopsae --version` the version."""


class ListByBlanks(Exception):
    """A list was given by blanks. The message says how it is given."""


def parse_options(verb: str, arguments: Sequence[str], default: Options | None = None) -> Options:
    """The options of a verb. default: those that the command line does not give.

    Raises SystemExit for --help and for what cannot be understood, of which tyro has told; ListByBlanks.
    """
    known = _type_for_help(VERBS[verb]) if {"--help", "-h"} & {*arguments} else VERBS[verb]
    _check_blanks(verb, known, arguments)
    with fit_output():
        options = tyro.cli(known, default=default, prog=f"autopsae {verb}", args=[*arguments])
    assert options is not None
    return options


def _check_blanks(verb: str, known: type[Options], arguments: Sequence[str]) -> None:
    """ListByBlanks where the words are not understood, but would be with commas in the place of blanks."""
    types = option_types(VERBS[verb])
    positional = sum(Positional in get_args(hint) for hint in types.values())
    for left in range(positional + 1):
        words, messages = join_lists(types, arguments, left=left)
        if messages and not _is_understood(known, arguments) and _is_understood(known, words):
            raise ListByBlanks("; ".join(messages))


def _is_understood(known: type[Options], arguments: Sequence[str]) -> bool:
    try:
        with redirect_stderr(StringIO()):
            tyro.cli(known, args=[*arguments], console_outputs=False)
    except SystemExit as asked:
        return not asked.code
    return True


def choose(arguments: Sequence[str]) -> None:
    """Tell which verbs there are. Raises SystemExit: --help was asked for, or no verb that there is."""
    verbs = tuple(
        Annotated[options, subcommand(name, description=as_paragraphs(options.__doc__ or ""))]
        for name, options in VERBS.items()
    )
    with fit_output({"{" + ",".join(VERBS) + "}": "VERB"}):
        tyro.cli(_union(verbs), prog="autopsae", description=_ABOUT, args=[*arguments])


def _union(types: Sequence[Any]) -> Any:
    union = types[0]
    for one in types[1:]:
        union = union | one
    return union


def option_types(options: Any) -> dict[str, Any]:
    """Every option by its name, with its type and what is marked on it; those in groups too. The options of a
    rare group are rare.
    """
    hints, types = get_type_hints(options, include_extras=True), dict[str, Any]()
    for name, hint in hints.items():
        inner = get_args(hint)[0] if get_args(hint) else hint
        if not (is_dataclass(inner) and isinstance(inner, type)):
            types[name] = hint
            continue
        group = option_types(inner)
        types |= {one: Annotated[its, Unshown()] for one, its in group.items()} if is_rare(hint) else group
    return types


def _type_for_help(options: type[Any]) -> type[Any]:
    """The same class for `--help`, which does not show what is rare. tyro reads no option that it does not show; so
    this class reads no command line.
    """
    texts, shown = field_texts(options), list[tuple[str, Any, Any]]()
    hints = get_type_hints(options, include_extras=True)
    for one in fields(options):
        name, hint = one.name, hints[one.name]
        inner, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        default: Any = field(default=one.default, default_factory=one.default_factory)
        if is_rare(hint):
            hint = Annotated[hint, Suppress]
        elif is_dataclass(inner) and isinstance(inner, type):
            group = _type_for_help(inner)
            hint, default = Annotated[group, *marks], group()
        elif name in texts:
            hint = Annotated[hint, arg(help=texts[name], **_help_form(hint, one.default))]
        shown.append((name, hint, default))
    described = {"__doc__": as_paragraphs(options.__doc__ or "")}
    return make_dataclass(options.__name__, shown, bases=(options,), frozen=True, kw_only=True, namespace=described)


def _help_form(hint: Any, default: Any) -> dict[str, Any]:
    """How `--help` shows an option, for `arg`: one that need not be given without what that means in Python. tyro
    would write {None}|INT (default: None).
    """
    if Positional in get_args(hint):
        return {"help_behavior_hint": "(required)"}
    if default not in (None, "", ()):
        return {}
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    [kind, *_] = get_args(inner) or (inner,)
    metavar = f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else kind.__name__.upper()
    return {"help_behavior_hint": "", **({"metavar": metavar} if default is None else {})}


def is_rare(hint: Any) -> bool:
    """Whether `--help` does not show an option of this type."""
    return any(isinstance(mark, Unshown) for mark in get_args(hint)[1:])


def is_recorded(hint: Any) -> bool:
    """Whether an option of this type is a setting of the results."""
    return not any(isinstance(mark, Unrecorded) for mark in get_args(hint)[1:])


def nearest(name: str, names: Sequence[str]) -> str:
    """What to try instead of a name that there is not."""
    near = get_close_matches(name, names, n=1, cutoff=0.0)
    return near[0]


def with_values(options: Any, values: Mapping[str, Any]) -> Any:
    """Options, or a group of them, with other values for these names."""
    given = {name: value for name, value in vars(options).items() if name in values or is_dataclass(value)}
    return replace(
        options, **{n: with_values(v, values) if is_dataclass(v) else values[n] for n, v in given.items()}
    )
