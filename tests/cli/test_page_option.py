"""--report of every verb that makes a result: the page of that result, written last."""

import json
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from autopsae.cli import verbs
from autopsae.cli.parsing import VERBS, option_types
from autopsae.report.run_plots import run_figure
from autopsae.sae.sparsity import TopK
from tests.report.pages import tokens
from tests.report.test_page import Read

pytestmark = pytest.mark.quick


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tokens x.npy, an SAE and annotations, which is the working directory."""
    from autopsae.remedies.remedy import untouched
    from autopsae.sae.init import born

    monkeypatch.chdir(tmp_path)
    np.save("x.npy", tokens(6.0, number=2000).numpy())
    born(untouched(12), d_sae=48, sparsity=TopK(k=3), scaled=False).save("sae")
    spans = [f"{document},{document % 20},{document % 20 + 9},c{document % 2}" for document in range(80)]
    Path("spans.csv").write_text("\n".join(["document,start,end,concept", *spans]))
    rows = [f"{n // 25},{n % 25},{n % 25 + 1},<b>" for n in range(2000)]
    Path("tokens.csv").write_text("\n".join(["document,start,end,text", *rows]))
    return tmp_path


SMALL = ["--d-sae", "48", "--k", "3"]
FEATURES = [
    "features",
    "sae",
    "x.npy",
    "--annotations",
    "spans.csv",
    "--token-table",
    "tokens.csv",
    "--latent",
    "3",
]
MAKES = {
    "autopsy": ["autopsy", "sae", "x.npy"],
    "diagnose": ["diagnose", "x.npy", *SMALL],
    "features": FEATURES,
    "train": ["train", "x.npy", *SMALL, "--steps", "3", "--batch-tokens", "100", "--out", "out"],
}


def test_every_verb_that_makes_a_result_can_show_it() -> None:
    makes = {verb for verb, options in VERBS.items() if {"json", "resume"} & {*option_types(options)}}
    assert (
        makes == {*MAKES, "merge"} == {verb for verb, options in VERBS.items() if "report" in option_types(options)}
    )


def points(page: Read) -> list[str]:
    """All points of all figures."""
    traces = [trace for figure in page.drawn.values() for trace in figure["data"]]
    return sorted(json.dumps([trace["name"], trace["x"], trace["y"]]) for trace in traces)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("verb", MAKES)
def test_the_page_of_a_verb_shows_what_that_of_its_file_shows(verb: str) -> None:
    json_too = [] if verb == "train" else ["--json", "a.json"]
    assert verbs.run([*MAKES[verb], *json_too, "--report", "page.html"]) == 0
    saved = ["out"] if verb == "train" else ["a.json"]
    if verb == "autopsy":
        assert verbs.run([*MAKES[verb], "--table", "a.csv"]) == 0
        saved.append("a.csv")
    assert verbs.run(["report", *saved, "--out", "again.html"]) == 0
    live, again = (Read(Path(name).read_text()) for name in ("page.html", "again.html"))
    assert live.numbers() == again.numbers()
    assert points(live) == points(again)
    assert live.text.count("What to run") == again.text.count("What to run") >= 1
    if verb != "train":
        assert f"{verb.replace('diagnose', 'diagnosis')} of {MAKES[verb][1]}" in unescape(live.text)
        assert max(Path().iterdir(), key=lambda path: path.stat().st_mtime_ns).name == "again.html"


@pytest.mark.usefixtures("here")
def test_the_page_is_written_last_and_its_failure_costs_no_other_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there: list[set[str]] = []

    def save_page(*words: object) -> None:
        there.append({path.name for path in Path().iterdir()})
        raise OSError("no room")

    monkeypatch.setattr("autopsae.cli.page.save_page", save_page)
    files = {"--json": "a.json", "--table": "a.csv", "--figure": "a.png", "--report": "page.html"}
    assert verbs.run([*MAKES["autopsy"], *(word for pair in files.items() for word in pair)]) == 2
    assert capsys.readouterr().err.endswith("error: no room\n")
    assert {"a.json", "a.csv", "a.png"} <= there[0]
    assert verbs.run([*MAKES["train"], "--report", "page.html"]) == 2
    assert "48 latents were born dead" in capsys.readouterr().out
    assert (Path("out") / "summary.json").is_file()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("verb", MAKES)
def test_a_page_that_cannot_be_made_is_told_before_the_work(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in Path().iterdir()}
    assert verbs.run([*MAKES[verb], "--report", "page.pdf"]) == 2
    assert "page.pdf: expected a page named .html, got '.pdf'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert verbs.run([*MAKES[verb], "--report", "page.html"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: a page: expected the package jinja2 (")
    assert said.endswith("; pip install 'autopsae[page]'\n")
    assert {path.name for path in Path().iterdir()} == before


@pytest.mark.usefixtures("here")
def test_a_page_has_a_file_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("autopsy", "diagnose", "features"):
        assert verbs.run([*MAKES[verb], "--json", "page.html", "--report", "page.html"]) == 2
        assert "expected a file of its own for each output, got page.html, page.html" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_run_that_diverged_and_one_that_was_finished_have_a_page_too() -> None:
    diverging = [*MAKES["train"], "--lr", "1e30", "--report", "page.html"]
    assert verbs.run(diverging) == 2
    if Path("out/summary.json").exists():
        assert "diverged" in Read(Path("page.html").read_text()).text
    else:
        assert not Path("page.html").exists()
    done = [*MAKES["train"][:-1], "done", "--seed", "0,1"]
    assert verbs.run(done) == 0
    assert verbs.run([*done, "--resume", "--report", "sweep.html"]) == 0
    assert "Sweep of 2 SAEs" in Read(Path("sweep.html").read_text()).text


@pytest.mark.usefixtures("here")
def test_a_trial_is_on_the_page_of_its_diagnosis() -> None:
    tried = ["--trial", "--steps", "30", "--batch-tokens", "64", "--json", "d.json", "--report", "page.html"]
    assert verbs.run([*MAKES["diagnose"], *tried]) == 0
    [name] = json.loads(Path("d.json").read_text())["trials"]
    text = Read(Path("page.html").read_text()).text
    prescribed = text.index(f"{name}: the trial prescribes")
    assert prescribed < text.index("The diagnosis, before the trial. What it") < text.index("Figures")


@pytest.mark.usefixtures("here")
def test_train_draws_the_curves_of_a_run_and_of_a_sweep() -> None:
    train = [*MAKES["train"][:-1]]
    for suffix in ("png", "svg", "pdf"):
        assert verbs.run([*train, f"run-{suffix}", "--figure", f"run.{suffix}"]) == 0
        assert Path(f"run.{suffix}").stat().st_size > 5000
    assert verbs.run([*train, "sweep", "--lr", "1e-3,1e-4", "--figure", "sweep.png", "--report", "s.html"]) == 0
    one, many = run_figure("run-png"), run_figure("sweep")
    records = [json.loads(line) for line in Path("run-png/records.jsonl").read_text().splitlines()]
    by_name = {
        line.get_label(): np.asarray(line.get_ydata()).tolist() for axis in one.get_axes() for line in axis.lines
    }
    assert by_name["FVU of the batch"] == [record["fvu"] for record in records]
    assert by_name["have not fired since step 0"] == [100 * record["never_fired"] for record in records]
    best = json.loads(Path("sweep/sweep.json").read_text())["best"]
    names = {line.get_label() for line in many.get_axes()[1].lines}
    assert len(names) == 2
    assert {f"{name} (best)" for name in best.values()} < names


@pytest.mark.usefixtures("here")
def test_a_figure_that_cannot_be_written_is_refused_before_the_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verbs.run([*MAKES["train"], "--figure", "a.gif"]) == 2
    assert "a.gif: expected a figure named .png, .pdf or .svg, got '.gif'" in capsys.readouterr().err
    assert verbs.run([*MAKES["train"], "--figure", "x.npy/a.png"]) == 2
    assert not Path("out").exists()
