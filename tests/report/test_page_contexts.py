"""Laws of the top activations of all latents on the page: each can be asked for, and thousands stay small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopsae.cli import verbs
from autopsae.remedies.remedy import untouched
from autopsae.report.page.contexts import ROOM, Contexts, contexts_of, short_examples
from autopsae.report.page.read import read_content, read_result
from autopsae.report.page.write import page_html
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from tests.report import pages
from tests.report.test_page import Read


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("features")
    pages.save_features(folder / "features.json", folder / "compared.json")
    return dict(json.loads((folder / "features.json").read_text()))


def held_of(content: dict[str, Any]) -> Contexts:
    held = contexts_of(read_result(content))
    assert held is not None
    return held


def test_every_latent_that_fires_can_be_asked_for_with_its_largest_codes(features: dict[str, Any]) -> None:
    read = Read(page_html([features]))
    told = features["activations"]["latents"]
    [shown] = read.packed(2).values()
    assert {*shown} == {str(latent["latent"]) for latent in told}
    for latent in told:
        for example, short in zip(latent["top"], shown[str(latent["latent"])], strict=True):
            assert short[0] == pytest.approx(example["value"], rel=1e-3)
            assert short[1:] == [example[key] for key in ("document", "position", "before", "text", "after")]
    [lookup] = read.packed(1).values()
    assert [row[0] for row in lookup["rows"]] == sorted(latent["latent"] for latent in told)
    best = {score["latent"]: score["concept"] for score in features["scores"]}
    assert all(best.get(row[0], "no concept") in row[-1] for row in lookup["rows"])


def test_a_mark_of_every_figure_of_latents_leads_to_the_latent(features: dict[str, Any]) -> None:
    read = Read(page_html([{name: part for name, part in features.items() if name != "latent"}]))
    [lookup] = [str(attributes["id"]) for _, attributes in read.tags if attributes.get("class") == "lookup"]
    by_figure = [
        [number for trace in figure["data"] for number in trace.get("customdata", [])]
        for figure in read.drawn.values()
    ]
    asked = [{*own} for own in by_figure if own]
    assert {f"{lookup}-{score['latent']}" for score in features["scores"]} in asked
    assert {latent["latent"] for latent in features["activations"]["latents"]} in asked
    links = [str(attributes["href"])[1:] for tag, attributes in read.tags if tag == "a"]
    assert {f"{lookup}-{score['latent']}" for score in features["scores"]} <= {*links}


def test_eight_thousand_latents_with_long_texts_take_no_more_than_their_room(features: dict[str, Any]) -> None:
    held = held_of(pages.many_contexts(features, 8192))
    short = short_examples(held)
    assert len(short) == 8192
    assert ROOM / 2 < len(json.dumps(short)) <= ROOM
    assert all(one[4] == f" word{latent}" for latent, examples in short.items() for one in examples)


def test_where_there_is_no_room_the_latents_that_fire_most_are_shown(features: dict[str, Any]) -> None:
    held = held_of(pages.many_contexts(features, 300))
    short = short_examples(held, 5_000)
    assert 0 < len(short) < 300
    assert len(json.dumps(short)) <= 5_000
    fired = {str(latent["latent"]): latent["fired"] for latent in held.latents}
    assert min(fired[latent] for latent in short) >= max(n for latent, n in fired.items() if latent not in short)


def test_an_autopsy_shows_where_latents_fire_if_features_of_the_same_sae_are_on_the_page(
    features: dict[str, Any], tmp_path: Path
) -> None:
    pages.save_autopsy(tmp_path / "autopsy.json")
    autopsy = json.loads((tmp_path / "autopsy.json").read_text())
    rows = read_result(tmp_path / "autopsy.csv").rows

    def contexts(latents: int, *names: str) -> list[str]:
        wrote = [{"provenance": {"settings": {"sae": name}}} for name in names]
        one = read_content(autopsy | wrote[0], "autopsy", rows)
        read = Read(page_html([one, pages.many_contexts(features, latents) | wrote[1]]))
        return [lookup["contexts"] for lookup in read.packed(1).values()]

    first, second = contexts(48, "one", "one")
    assert first == second != ""
    for other in (contexts(48, "one", "two"), contexts(49, "one", "one")):
        assert [not anchor for anchor in other] == [True, False]


def test_features_show_all_latents_on_a_page_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x = pages.tokens(0.5)
    np.save("x.npy", x.numpy())
    born(untouched(12), d_sae=48, sparsity=TopK(k=3), scaled=False).save("sae")
    words = ["features", "sae", "x.npy", "--report", "page.html", "--json", "f.json"]
    assert verbs.run(words) == 0
    assert "of 48 latents are shown where they fire most, on 600 tokens" in capsys.readouterr().out
    content = json.loads(Path("f.json").read_text())["activations"]
    assert {len(latent["top"]) for latent in content["latents"] if latent["fired"] >= 3} == {3}
    [shown] = Read(Path("page.html").read_text()).packed(2).values()
    assert {*shown} == {str(latent["latent"]) for latent in content["latents"]}
    assert verbs.run([*words, "--examples", "101"]) == 2
    assert "--examples: expected 0 to 100 tokens of each latent, got 101" in capsys.readouterr().err


def test_the_contexts_of_all_latents_follow_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", pages.tokens(0.5).numpy())
    born(untouched(12), d_sae=48, sparsity=TopK(k=3), scaled=False).save("sae")
    rows = [f"{n // 30},{n % 30},{n % 30 + 1},x" for n in range(600)]
    Path("tokens.csv").write_text("\n".join(["document,start,end,text", *rows]))
    words = ["features", "sae", "x.npy", "--token-table", "tokens.csv", "--examples", "2", "--json", "f.json"]
    longest = []
    for window in ([], ["--window", "4"]):
        assert verbs.run([*words, *window]) == 0
        latents = json.loads(Path("f.json").read_text())["activations"]["latents"]
        longest.append(max(len(one["before"]) for latent in latents for one in latent["top"]))
    assert longest == [12, 4]
    assert verbs.run([*words, "--window", "-1"]) == 2
    assert "window: expected at least 0 tokens, got -1" in capsys.readouterr().err
