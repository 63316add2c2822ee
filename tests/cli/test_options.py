"""The options of every verb: one syntax for lists, every sparsity, short help, help without PyTorch."""

import json
import subprocess
import sys
from dataclasses import MISSING, fields
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from tyro.conf import Positional
from tyro.constructors import PrimitiveConstructorSpec

from autopsae.cli.options.diagnose import DiagnoseOptions
from autopsae.cli.options.sparsity import sparsities
from autopsae.cli.parsing import VERBS, is_rare, option_types, parse_options, with_values
from autopsae.cli.trial import training_of
from autopsae.cli.verbs import run
from autopsae.defaults import ACCEPTABLE, K
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.prescription import Prescription
from autopsae.interop.convert import load_sae
from autopsae.sae.sparsity import SPARSITIES
from autopsae.training.objective import L1, L0Target

NEEDED = {
    "autopsy": ["sae", "a.npy"],
    "convert": ["a", "b", "--to", "saelens"],
    "diagnose": ["a.npy"],
    "features": ["sae", "a.npy"],
    "harvest": ["model", "out"],
    "merge": ["a.safetensors", "b.safetensors"],
    "pull": ["owner/name", "out"],
    "push": ["out", "owner/name"],
    "report": ["a.json", "b"],
    "stats": ["a.npy", "--out", "a.safetensors"],
    "train": ["a.npy", "--out", "out"],
}
LISTS = [
    (verb, name)
    for verb, options in VERBS.items()
    for name, hint in option_types(options).items()
    if "tuple" in str(hint) and Positional not in get_args(hint)
]


def squeezed(text: str) -> str:
    """What a box of the terminal says, on one line."""
    return " ".join("".join(c for c in text if c not in "│╭╮╰╯─").split())


@pytest.mark.quick
def test_what_is_read_of_the_sparsities_is_what_their_classes_say() -> None:
    assert {*sparsities()} == {*SPARSITIES}
    for name, described in sparsities().items():
        of_class = {field.name: field for field in fields(SPARSITIES[name])}  # type: ignore[arg-type]
        assert described.settings == {one: field.type for one, field in of_class.items()}
        defaults = {one: field.default for one, field in of_class.items() if field.default is not MISSING}
        assert described.defaults == defaults


@pytest.mark.parametrize("sparsity", [*SPARSITIES])
def test_a_plan_measures_the_loss_that_the_sparsity_is_trained_with(sparsity: str) -> None:
    options = parse_options("diagnose", ["a.npy", "--plan", "--sparsity", sparsity])
    assert isinstance(options, DiagnoseOptions)
    expected = {"relu": L1(coefficient=1.0), "jumprelu": L0Target(l0=float(K))}
    assert training_of(options).penalty == expected.get(sparsity)


def test_there_are_lists_in_five_verbs() -> None:
    assert {"layers", "alphas", "ranks", "lr", "init", "seed", "l1", "alpha", "nested", "skip_ids"} <= {
        name for _, name in LISTS
    }
    assert {verb for verb, _ in LISTS} == {"diagnose", "features", "harvest", "merge", "train"}


@pytest.mark.parametrize(("verb", "name"), LISTS)
def test_every_list_is_values_joined_by_commas_and_refused_in_the_same_words(
    verb: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [spec] = [
        mark for mark in get_args(option_types(VERBS[verb])[name]) if isinstance(mark, PrimitiveConstructorSpec)
    ]
    assert isinstance(spec.metavar, str)
    word = spec.metavar.split("[")[0]
    assert spec.metavar == f"{word}[,{word}...]"
    for wrong in ("1,,2", "1,1"):
        assert run([verb, *NEEDED[verb], f"--{name.replace('_', '-')}", wrong]) == 2
        said = squeezed(capsys.readouterr().err).replace(f"({word}, {word})", f"({word},{word})")
        assert f"expected values joined by commas, each once ({word},{word}), got '{wrong}'" in said


VALUES = {"FLOAT": ("0.25", "0.5"), "INT": ("4", "8"), "NAME": ("hs1", "12"), "START": ("zero", "median")}
VALUES["BIAS"] = ("slow", "frozen")


@pytest.mark.parametrize(("verb", "name"), LISTS)
@pytest.mark.parametrize("typed", ["{0} {1}", "{0}, {1}", "{0} ,{1}"])
def test_a_list_given_by_blanks_is_refused_in_one_line_that_says_what_to_type(
    verb: str, name: str, typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [spec] = [s for s in get_args(option_types(VERBS[verb])[name]) if isinstance(s, PrimitiveConstructorSpec)]
    values = VALUES[str(spec.metavar).split("[")[0]]
    given, option = typed.format(*values), f"--{name.replace('_', '-')}"
    expected = (
        f"error: {option}: expected values joined by commas ({spec.metavar}), got {given}; "
        f"try {option} {','.join(values)}\n"
    )
    for words in (
        [*NEEDED[verb], option, *given.split()],
        [option, *given.split(), *NEEDED[verb]],
        [*NEEDED[verb], *f"{option}={given}".split()],
    ):
        assert run([verb, *words]) == 2
        assert capsys.readouterr().err == expected


def test_every_list_given_by_blanks_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", *NEEDED["train"], "--lr", "0.1", "0.2", "--seed", "0", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: --lr: expected values joined by commas (FLOAT[,FLOAT...]), got 0.1 0.2; try --lr"
    )
    assert said.endswith("; --seed: expected values joined by commas (INT[,INT...]), got 0 1; try --seed 0,1\n")


@pytest.mark.parametrize(
    ("verb", "words", "expected"),
    [
        ("harvest", ["--layers", "3", "model", "out"], {"layers": ("3",), "model": "model", "out": Path("out")}),
        ("diagnose", ["--layers", "3", "12"], {"layers": ("3",), "source": "12"}),
        ("train", ["--seed", "3", "12", "--out", "o"], {"seed": (3,), "source": Path("12")}),
        ("train", ["--seed=3", "a.npy", "--out=o"], {"seed": (3,), "source": Path("a.npy")}),
    ],
)
def test_a_list_before_what_is_positional_is_understood(
    verb: str, words: list[str], expected: dict[str, object]
) -> None:
    options = vars(parse_options(verb, words))
    assert {name: options[name] for name in expected} == expected


def test_where_more_is_wrong_than_blanks_nothing_is_said_of_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--layers", "3", "model"], ["model", "out", "--layers", "3", "12", "--nowhere"]):
        assert run(["harvest", *words]) == 2
        assert "joined by commas" not in capsys.readouterr().err


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    np.save("a.npy", x + 2)


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize("name", [*SPARSITIES])
def test_every_sparsity_is_diagnosed_and_named_in_table_json_and_prescription(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"k": 4, "bandwidth": 0.2, "start": 0.5}
    settings = {one: given[one] for one in sparsities()[name].settings}
    words = [word for one, value in settings.items() for word in (f"--{one}", str(value))]
    asked = ["diagnose", "a.npy", "--d-sae", "32", "--sparsity", name, *words]
    assert run([*asked, "--json", "d.json", "--prescriptions", "p"]) == 0
    sparsity = SPARSITIES[name](**settings)
    assert str(sparsity) in squeezed(capsys.readouterr().out)
    [layer] = json.loads(Path("d.json").read_text())["layers"]
    assert (layer["sparsity"], layer["k"]) == (sparsity.to_dict(), sparsity.l0)
    assert Prescription.load("p/a").sparsity == sparsity


@pytest.mark.usefixtures("tokens")
def test_a_training_takes_what_is_not_given_of_its_size_from_the_prescription(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["diagnose", "a.npy", "--d-sae", "32", "--k", "4", "--prescriptions", "p"]) == 0
    start = ["train", "a.npy", "--prescription", "p/a", "--steps", "2", "--batch-tokens", "64", "--out"]
    for out, words, size in (
        ("same", [], (32, 4)),
        ("wider", ["--d-sae", "48"], (48, 4)),
        ("fewer", ["--k", "3"], (32, 3)),
        ("other", ["--sparsity", "groupmax", "--k", "8"], (32, 8)),
    ):
        capsys.readouterr()
        assert run([*start, out, *words]) == 0
        trained = load_sae(out)
        assert (trained.d_sae, trained.sparsity.l0) == size
        assert ("was made for another" in capsys.readouterr().err) == bool(words)
    assert run([*start[:3], "p", *start[4:], "none"]) == 2
    assert "p: expected the name of a prescription, got a folder" in capsys.readouterr().err


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["relu", "--k", "4"],
            "--k: expected --sparsity batch_topk or groupmax or topk with it, got relu; leave it",
        ),
        (["jumprelu", "--k", "4"], "--k: expected --sparsity batch_topk or groupmax or topk with it, got jumprelu"),
        (["topk", "--bandwidth", "1"], "--bandwidth: expected --sparsity jumprelu with it, got topk; leave it out"),
        (["jumprelu", "--start", "0"], "JumpReLU: expected start > 0, got 0.0"),
        (["groupmax", "--k", "5", "--d-sae", "32"], "GroupMax: expected d_sae that is a multiple of k, got 32"),
    ],
)
def test_a_setting_that_a_sparsity_does_not_have_is_refused_by_name(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["diagnose", "a.npy", "--sparsity", *words]) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_train_shows_the_dozen_options_that_people_use_config_and_resume() -> None:
    shown = [name for name, hint in option_types(VERBS["train"]).items() if not is_rare(hint) and name != "source"]
    of_the_sae = ["sparsity", "k", "d_sae", "prescription", "init"]
    assert shown == [
        "out",
        "config",
        "layer",
        *of_the_sae,
        "steps",
        "lr",
        "batch_tokens",
        "resume",
        "figure",
        "report",
        "seed",
        "device",
    ]


def test_a_rare_option_by_its_name_is_the_same_as_in_the_file() -> None:
    by_name = ["--l1", "0.5,2", "--revive", "auxk", "--warmup-steps", "3", "--no-scale", "--csv", "--start", "0.2"]
    in_file = {"l1": (0.5, 2.0), "revive": "auxk", "warmup_steps": 3, "scale": False, "csv": True, "start": 0.2}
    plain = parse_options("train", NEEDED["train"])
    assert parse_options("train", [*NEEDED["train"], *by_name]) == with_values(plain, in_file)
    assert with_values(plain, in_file) != plain


@pytest.mark.quick
def test_the_defaults_that_help_tells_are_those_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diagnose", "--help"]) == 0
    shown = squeezed(capsys.readouterr().out)
    assert f"on average; {K} if not given" in shown
    assert f"before something is prescribed. (default: {ACCEPTABLE})" in shown
    assert signature(diagnose).parameters["acceptable"].default == ACCEPTABLE


@pytest.mark.quick
def test_help_shows_no_rare_option_and_every_other(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, options in VERBS.items():
        assert run([verb, "--help"]) == 0
        shown = capsys.readouterr().out
        for name, hint in option_types(options).items():
            word = f"--{name.replace('_', '-')}"
            hidden = is_rare(hint) or Positional in get_args(hint)
            assert (f" {word} " in shown or f" {word}," in shown) != hidden, name


@pytest.mark.quick
@pytest.mark.parametrize(
    ("verb", "page"), [("train", "training.md"), ("diagnose", "diagnosis.md"), ("features", "features.md")]
)
def test_every_rare_option_stands_in_the_docs_and_no_other(verb: str, page: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / page).read_text()
    table = page.split("Options that `--help` does not show:")[1].split("\n\n")[1].splitlines()[2:]
    named = [name.strip("` ") for row in table for name in row.split("|")[1].split(",")]
    assert sorted(named) == sorted(name for name, hint in option_types(VERBS[verb]).items() if is_rare(hint))


HELP = """
import resource, sys
from autopsae.cli.verbs import run
assert run(sys.argv[1:]) == 0
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = {"torch", "numpy", "safetensors", "jaxtyping", "pandas"} & {*sys.modules}
print("HEAVY", *heavy, file=sys.stderr)
print("SECONDS", used.ru_utime + used.ru_stime, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_needs_no_pytorch_and_less_than_half_a_second(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", HELP, *words], capture_output=True, text=True, check=True)
    heavy, seconds = done.stderr.splitlines()
    assert heavy == "HEAVY"
    assert float(seconds.split()[1]) < 0.8  # 0.25 on a quiet machine; others may be at work beside the tests


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"autopsae {version('autopsae')}\n"


def test_no_verb_or_another_one_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["trian"]):
        assert run(words) == 2
        said = squeezed(capsys.readouterr().err)
        assert "autopsy, convert, diagnose, features, harvest, merge, pull, push, report, stats, train" in said
