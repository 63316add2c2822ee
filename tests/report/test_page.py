"""Laws of the page: what it says is what the files say, as text, and without a network."""

import csv
import json
import re
import shlex
from base64 import b64decode
from gzip import decompress
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopsae.cli import verbs
from autopsae.diagnosis.survey import survey
from autopsae.report import page
from autopsae.report.page.charts import Axis, Series, chart
from autopsae.report.page.write import PLOTLY, page_html, save_page
from autopsae.survival.closed_form import reach
from tests.report import pages

pytestmark = pytest.mark.quick

KINDS = ("diagnosis", "trial", "run", "sweep", "autopsy", "latents", "features", "comparison")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return pages.save_all(tmp_path_factory.mktemp("saved"))


class Read(HTMLParser):
    """What an HTML reader sees: tags, the text outside of scripts, and the JSON of the figures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(expand(html))
        self.drawn: dict[str, Any] = json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)

    def packed(self, number: int) -> Any:
        """What a script holds as compressed JSON: 1 long tables, 2 top activations."""
        return json.loads(decompress(b64decode(self.scripts[number])))

    @property
    def text(self) -> str:
        return "".join(self.words)

    def numbers(self) -> list[float]:
        """The numbers behind the cells of all tables."""
        return [float(str(attributes["value"])) for tag, attributes in self.tags if tag == "data"]


def expand(html: str) -> str:
    """A page with what is inside of its details, which is compressed, at its end."""
    [packed] = re.findall(r'<script type="application/gzip" id="inside">(.*?)</script>', html)
    return html + "".join(json.loads(decompress(b64decode(packed))).values())


def numbers_in(value: Any) -> set[float]:
    if isinstance(value, dict):
        return {number for inner in value.values() for number in numbers_in(inner)}
    if isinstance(value, list):
        return {number for inner in value for number in numbers_in(inner)}
    return {float(value)} if type(value) in (int, float) else set()


def code_of(html: str) -> list[str]:
    told = re.findall(r"<code>(.*?)</code>", expand(html), re.DOTALL)
    return [unescape(re.sub("</?span[^>]*>", "", line)) for line in told]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_result_has_a_verdict_figures_and_tables(saved: dict[str, Path], kind: str) -> None:
    read = Read(page_html([saved[kind]]))
    tags = [tag for tag, _ in read.tags]
    assert tags.count("h1") == 1
    assert tags.count("h2") >= 1
    assert tags.count("figure") == len(read.drawn) >= 1 + (kind != "latents")
    assert tags.count("table") >= tags.count("figure")
    assert read.text.index("Dark colours") < read.text.index("Figures")


def test_results_of_all_kinds_stand_on_one_page(saved: dict[str, Path]) -> None:
    read = Read(page_html(saved.values()))
    headings = [attributes for tag, attributes in read.tags if tag == "section"]
    assert len(headings) == len({attributes["id"] for attributes in headings}) == len(KINDS) + 4
    ids = [attributes["id"] for _, attributes in read.tags if attributes.get("id")]
    assert len({*ids}) == len(ids)
    links = {str(attributes["href"])[1:].split("-")[0] for tag, attributes in read.tags if tag == "a"}
    assert links <= {*ids}


@pytest.mark.parametrize("kind", ["diagnosis", "trial", "autopsy", "features", "comparison"])
def test_every_number_of_the_tables_is_one_of_the_json(saved: dict[str, Path], kind: str) -> None:
    content = json.loads(saved[kind].read_text())
    known = numbers_in(content) | {float(n) for n in range(60)}  # places along an axis
    if kind == "autopsy":
        known |= {number / content["d_sae"] for number in [*known]}
    if kind == "features":
        known |= {float(name) for name in content["curve"]}
        shown = list(Read(page_html([saved[kind]])).drawn.values())
        known |= numbers_in([[trace["x"], trace["y"]] for figure in shown for trace in figure["data"]])
    if kind == "comparison":
        known |= {float(name) for name in content["coverages"]["one"]["curve"]}
    strange = {number for number in Read(page_html([saved[kind]])).numbers() if number not in known}
    assert strange == set()


def test_the_dead_of_every_layer_and_remedy_are_in_the_figure_and_its_table(saved: dict[str, Path]) -> None:
    content = json.loads(saved["diagnosis"].read_text())
    read = Read(page_html([saved["diagnosis"]]))
    figures = [figure["data"] for figure in read.drawn.values()]
    [born] = [traces for traces in figures if "arithmetic mean" in [trace["name"] for trace in traces]]
    for trace, remedy in zip(born, ("none", "mean", "median", "zscore", "whiten"), strict=True):
        births = [layer["birth"][remedy] for layer in content["layers"]]
        assert trace["y"] == [birth["dead"] for birth in births]
        if any("dead_interval" in birth for birth in births):
            up = [birth["dead_interval"][1] - birth["dead"] for birth in births]
            assert trace["error_y"]["array"] == pytest.approx([max(0.0, one) for one in up], abs=1e-12)
    assert {layer["birth"]["mean"]["dead"] for layer in content["layers"]} <= {*read.numbers()}


def test_the_numbers_of_a_run_are_those_of_its_records(saved: dict[str, Path]) -> None:
    records = [json.loads(line) for line in (saved["run"] / "records.jsonl").read_text().splitlines()]
    read = Read(page_html([saved["run"]]))
    traces = [trace for figure in read.drawn.values() for trace in figure["data"]]
    by_name = {trace["name"]: trace["y"] for trace in traces}
    for name, key in (("have not fired since step 0", "never_fired"), ("threshold", "threshold"), ("dead", "dead")):
        assert by_name[name] == [record[key] for record in records]
    held_out = [json.loads(line) for line in (saved["run"] / "held_out.jsonl").read_text().splitlines()]
    assert by_name["raw FVU, held out"] == [one["fvu_raw"] for one in held_out]
    summary = json.loads((saved["run"] / "summary.json").read_text())
    assert {summary["fvu_raw"], summary["dead"], summary["birth"]["dead"]} <= {*read.numbers()}


def test_every_latent_of_a_table_stands_where_its_shift_and_signal_are(saved: dict[str, Path]) -> None:
    rows = list(csv.DictReader(saved["latents"].read_text().splitlines()))
    read = Read(page_html([saved["latents"]]))
    [figure] = read.drawn.values()
    marks = [trace for trace in figure["data"] if trace["mode"] == "markers"]
    points = {
        latent: point
        for trace in marks
        for latent, *point in zip(trace["customdata"], trace["x"], trace["y"], strict=True)
    }
    assert {*points} == {int(row["latent"]) for row in rows}
    for row in rows:
        assert points[int(row["latent"])] == pytest.approx([float(row["shift"]), float(row["signal"])], rel=1e-4)
    names = {trace["name"] for trace in marks}
    for cause in {row["cause"] for row in rows if row["fate"] == "dead_by_topk"}:
        number = sum((row["cause"], row["fate"]) == (cause, "dead_by_topk") for row in rows)
        assert f"dead, never selected: {cause} ({number})" in names
    [line] = [trace for trace in figure["data"] if trace["mode"] == "lines"]
    assert line["x"] == pytest.approx([-reach(600) * value for value in line["y"]])


def test_all_that_the_table_says_of_a_latent_can_be_looked_up(saved: dict[str, Path]) -> None:
    rows = list(csv.DictReader(saved["latents"].read_text().splitlines()))
    read = Read(page_html([saved["latents"]]))
    [own] = read.packed(1).values()
    assert [row[0] for row in own["rows"]] == list(range(len(rows)))
    assert len(own["header"]) == len(rows[0])
    for told, row in zip(own["rows"], rows, strict=True):
        assert {row["fate"], row["cause"], "yes" if row["wakes"] == "True" else "no"} <= {*told}
        for name in ("margin", "alignment", "signal"):
            assert any(isinstance(v, int | float) and v == pytest.approx(float(row[name]), rel=1e-4) for v in told)
    [figure] = read.drawn.values()
    for trace in figure["data"]:
        for x, latent in zip(trace["x"], trace.get("customdata", []), strict=False):
            assert x == pytest.approx(float(rows[latent]["shift"]), rel=1e-4)
    assert figure["layout"]["meta"]["lookup"] in [attributes.get("id") for _, attributes in read.tags]


def test_the_latent_of_a_concept_leads_to_its_examples(saved: dict[str, Path]) -> None:
    content = json.loads(saved["features"].read_text())
    read = Read(page_html([saved["features"]]))
    [target] = [
        attributes["id"]
        for tag, attributes in read.tags
        if tag == "section" and f'id="{attributes["id"]}-h">Latent' in page_html([saved["features"]])
    ]
    links = [attributes["href"] for tag, attributes in read.tags if tag == "a"]
    best = sum(score["latent"] == content["latent"]["latent"] for score in content["scores"])
    assert links.count(f"#{target}") == best + 1 >= 2  # one more at the top of the page
    clicked = [trace.get("customdata", []) for figure in read.drawn.values() for trace in figure["data"]]
    assert sum(points.count(target) for points in clicked) == 2 * best


def test_a_layer_shows_its_deaths_its_spectrum_and_its_landscape(saved: dict[str, Path]) -> None:
    content = json.loads(saved["diagnosis"].read_text())
    read = Read(page_html([saved["diagnosis"]]))
    traces = [[trace["y"] for trace in figure["data"]] for figure in read.drawn.values()]
    for layer in content["layers"]:
        dead = [birth["dead"] for birth in layer["birth"].values()]
        expected = [
            layer["expected"][name]["dead"]["value"] for name in layer["birth"] if name in layer["expected"]
        ]
        assert [dead, expected] in traces
        assert [layer["spectrum"]["variances"]] in traces
        marked = [abs(one["mean"]) for one in layer["outlier_dimensions"]]
        assert [layer["landscape"]["sizes"], *([marked] if marked else [])] in traces
    for layer in content["layers"]:
        del layer["spectrum"], layer["landscape"]  # as an earlier version wrote it
    assert len(Read(page_html([content])).drawn) == len(read.drawn) - 2 * len(content["layers"])


def test_many_records_are_drawn_at_equal_steps_and_the_page_says_so(saved: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("summary.json", "held_out.jsonl"):
        (tmp_path / "run" / name).write_bytes((saved["run"] / name).read_bytes())
    first = json.loads((saved["run"] / "records.jsonl").read_text().splitlines()[0])
    lines = [json.dumps({**first, "step": step}) for step in range(1000)]
    (tmp_path / "run" / "records.jsonl").write_text("\n".join(lines) + "\n")
    read = Read(page_html([tmp_path / "run"]))
    [trace] = [t for figure in read.drawn.values() for t in figure["data"] if t["name"] == "threshold"]
    assert (len(trace["x"]), trace["x"][0], trace["x"][-1]) == (300, 1, 1000)
    assert {b - a for a, b in zip(trace["x"], trace["x"][1:], strict=False)} == {3, 4}
    assert "300 of 1,000 records are drawn." in read.text


def test_names_with_html_in_them_stay_text_everywhere(saved: dict[str, Path]) -> None:
    html = page_html(saved.values(), title="<img src=x onerror=alert(1)>")
    read = Read(html)
    assert len(read.scripts) == 6  # four of them data
    tags = {tag for tag, _ in read.tags}
    assert not {"u", "s", "i", "img"} & tags
    assert "<img src=x onerror=alert(1)>" in read.text
    for name in pages.NAMES.values():
        assert name in read.text
    assert all(not name.startswith("on") for _, attributes in read.tags for name in attributes)
    # Plotly makes tags of what it draws: every name reaches it escaped.
    drawn = json.dumps(read.drawn)
    assert "&lt;b&gt;hs1&lt;/b&gt;" in drawn
    assert "<" not in drawn


def test_the_page_asks_for_nothing_from_anywhere(saved: dict[str, Path]) -> None:
    html = page_html(saved.values())
    read = Read(html)
    for tag, attributes in read.tags:
        for name in ("src", "href", "action", "poster", "srcset"):
            place = attributes.get(name)
            assert place is None or place.startswith("#") or place == "data:,", (tag, place)
    [style] = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    [policy] = [a["content"] for tag, a in read.tags if tag == "meta" and "Policy" in str(a.get("http-equiv"))]
    assert str(policy).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in str(policy).split(";")[1]


def test_fifty_layers_under_six_remedies_take_less_than_five_megabytes(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "d.json").write_text(json.dumps(pages.many_layers(saved["diagnosis"])))
    latents = np.random.default_rng(0).random(8192)
    score = {"d_sae": 8192, "live": 8192, "scored": 8192, "mean": 0.5, "mean_with_dead_as_zero": 0.5}
    score |= {"mean_top_16": 0.6, "by_chance": 0.1, "all_inputs": latents.tolist()}
    (tmp_path / "f.json").write_text(json.dumps({"monosemanticity": {"one": score}}))
    pages.save_latents(saved["latents"], tmp_path / "a.csv")
    contexts = pages.many_contexts(json.loads(saved["features"].read_text()))
    (tmp_path / "t.json").write_text(json.dumps(contexts))
    save_page([tmp_path / name for name in ("d.json", "f.json", "a.csv", "t.json")], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 5_000_000


def test_a_result_of_python_is_shown_as_its_file_is(saved: dict[str, Path], tmp_path: Path) -> None:
    result = survey({"a": pages.tokens(3.0)}, d_sae=48, k=3)
    result.save(tmp_path / "d.json")
    live, file = Read(page_html([result])), Read(page_html([tmp_path / "d.json"]))
    assert live.numbers() == file.numbers()
    assert Read(page_html([result["a"]])).numbers() == file.numbers()
    both = Read(page_html([{**result.to_dict(), "trials": {"a": pages.trial_content("a")}}]))
    assert "The diagnosis, before the trial. What it prescribes for a no longer counts." in both.text
    assert result.verdict[0] in live.text


def test_the_commands_of_a_page_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("my layer.npy", pages.tokens(6.0, number=5000).numpy())
    words = ["diagnose", "my layer.npy", "--d-sae", "48", "--k", "3", "--steps", "20", "--json", "d.json"]
    assert verbs.run(words) == 0
    assert verbs.run(["report", "d.json"]) == 0
    assert capsys.readouterr().out.endswith("report.html: open it in a browser\n")
    html = Path("report.html").read_text()
    commands = [shlex.split(line) for line in dict.fromkeys(code_of(html))]
    assert [line[1] for line in commands] == ["diagnose", "train"]
    for line in commands:
        assert verbs.run(line[1:]) == 0, line
    [folder] = [path for path in Path().iterdir() if path.name.startswith("sae-")]
    assert verbs.run(["report", str(folder), "--out", "run.html"]) == 0
    [line] = [shlex.split(line) for line in code_of(Path("run.html").read_text())]
    assert verbs.run(line[1:]) == 0
    assert verbs.run(["report", "d.json", str(folder), "autopsy.json"]) == 0


def test_python_lines_of_a_page_run(saved: dict[str, Path]) -> None:
    [first, *_] = code_of(page_html([saved["diagnosis"]]))
    assert first.startswith("import autopsae\n")
    exec(first.replace("steps=100000", "steps=2"), {"tokens": pages.tokens(6.0, number=5000)})


def test_the_library_that_is_carried_says_its_version_and_licence() -> None:
    static = Path(page.__file__).parent / "static"
    head = (static / f"plotly-basic-{PLOTLY}.min.js").read_text(encoding="utf-8")[:400]
    assert f"v{PLOTLY}" in head
    assert "MIT" in (static / "plotly-LICENSE").read_text()[:20]


def test_an_axis_over_decades_has_ticks_that_are_written_whole() -> None:
    def ticks(*values: float) -> list[str]:
        points = Series(name="a", x=[1.0] * len(values), y=values)
        drawn = chart("t", "", [points], x=Axis(title="x"), y=Axis(title="y", is_log=True), of="").drawn
        return list(drawn["layout"]["yaxis"]["ticktext"])

    assert ticks(0.11, 0.9) == ["0.1", "0.2", "0.5", "1", "2", "5"]
    assert ticks(0.02, 70.0) == ["0.01", "0.1", "1", "10", "100"]


def test_names_along_an_axis_are_broken_between_their_words_and_shown_letter_by_letter() -> None:
    names = ["dead, never selected", "<b>a name</b>", "outcompeted", "a very long name of many words"]
    points = Series(name="a", x=[0, 1, 2, 3], y=[1.0] * 4)
    drawn = chart("t", "", [points], x=Axis(title="x", names=names), y=Axis(title="y"), of="").drawn
    assert drawn["layout"]["xaxis"]["ticktext"] == [
        "dead,\nnever\nselected",
        "&lt;b&gt;a\nname&lt;/b&gt;",
        "outcompeted",
        "a very\nlong…many\nwords",
    ]


@pytest.mark.parametrize(("most", "step"), [(3, 1), (8, 1), (9, None)])
def test_a_few_whole_numbers_have_a_mark_each(most: int, step: int | None) -> None:
    points = Series(name="a", x=[0, 1], y=[0, most])
    drawn = chart("t", "", [points], x=Axis(title="x"), y=Axis(title="latents", form=",.0f"), of="").drawn
    assert drawn["layout"]["yaxis"].get("dtick") == step


def test_the_first_lines_of_a_page_of_several_results_say_what_to_do(saved: dict[str, Path]) -> None:
    text = " ".join(Read(page_html(saved.values())).text.split())
    verdict = json.loads(saved["diagnosis"].read_text())["verdict"]
    assert len(verdict) > 1
    top = text[: text.index("Figures")]
    assert all(" ".join(line.split()) in top for line in verdict)


def test_what_is_counted_and_what_is_expected_have_one_color(saved: dict[str, Path]) -> None:
    drawn = Read(page_html([saved["diagnosis"]])).drawn.values()
    [traces] = [one["data"] for one in drawn if "no remedy, now" in [trace["name"] for trace in one["data"]]]
    colors = {trace["name"]: trace["line"]["color"] for trace in traces}
    assert colors["no remedy, now"] == colors["no remedy, expected"]
    assert colors["prescribed, now"] == colors["prescribed, expected"] != colors["no remedy, now"]
    assert [trace["line"]["dash"] for trace in traces] == ["solid", "dash", "solid", "dash"]
    assert {trace["cliponaxis"] for trace in traces} == {False}  # a mark at 0 % is drawn whole


def test_one_layer_has_its_own_figures_and_none_along_the_layers(saved: dict[str, Path]) -> None:
    content = json.loads(saved["diagnosis"].read_text())
    html = page_html([{**content, "layers": content["layers"][:1]}])
    titles = re.findall(r"<h4[^>]*>(.*?)</h4>", html)
    assert titles == [f"hs0: {what}" for what in ("dead latents by remedy", "spectrum", "landscape")]


def test_a_result_with_several_sections_says_once_what_wrote_it(saved: dict[str, Path]) -> None:
    html = page_html([saved["features"]])
    assert html.count("<section ") > 1
    assert html.count("What wrote this") == 1


def test_an_autopsy_of_which_nothing_is_dead_has_no_figure_of_causes(saved: dict[str, Path]) -> None:
    content = json.loads(saved["autopsy"].read_text())
    assert any(content["causes"].values())
    assert "Dead latents by cause" in page_html([content])
    alive = page_html([{**content, "causes": dict.fromkeys(content["causes"], 0)}])
    assert "Latents by fate" in alive
    assert "Dead latents by cause" not in alive
    assert "outcompeted" in page_html([content])
    assert "outcompeted" not in alive


def test_every_column_of_a_table_has_a_name(saved: dict[str, Path]) -> None:
    heads = re.findall(r'<th scope="col"[^>]*><button type="button">(.*?)<span', expand(page_html(saved.values())))
    assert len(heads) > 30
    assert all(heads)


def test_the_endings_of_candidates_names_are_explained(saved: dict[str, Path]) -> None:
    content = json.loads(saved["trial"].read_text())
    assert "In the names," not in page_html([content])
    [first, *others] = content["candidates"]
    slow = page_html([{**content, "candidates": [{**first, "name": "none_slow"}, *others]}])
    assert "In the names, slow: b_dec learns at a lower rate." in slow


def test_how_often_latents_fire_is_said_in_percent(saved: dict[str, Path]) -> None:
    names = [
        one["layout"]["xaxis"]["ticktext"]
        for one in Read(page_html([saved["run"]])).drawn.values()
        if "ticktext" in one["layout"]["xaxis"]
    ]
    assert any(rates[0] == "0%" and all(words.startswith("up to") for words in rates[1:]) for rates in names)


def test_what_wrote_a_result_names_what_was_set_and_no_more(saved: dict[str, Path]) -> None:
    content = json.loads(saved["diagnosis"].read_text())
    settings = {"exact": True, "trial": False, "layers": ["hs0", "hs1"], "k": 3, "text": None}
    text = Read(page_html([{**content, "provenance": {"command": "diagnose", "settings": settings}}])).text
    assert "exact, layers hs0 / hs1, k 3" in text
