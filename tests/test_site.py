"""The site and the pages that it is made of: no dead link, no name without words, nothing from the network."""

import ast
import inspect
import os
import re
import subprocess
import sys
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest
from tools import docs_site

from tests.test_public_api import rooms, top

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
MORE = [*ROOT.glob("experiments/**/README.md"), *ROOT.glob("benchmarks/*.md")]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    named = set[str]()
    for heading in re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        named.add(
            slug if slug not in named else next(f"{slug}-{n}" for n in range(1, 99) if f"{slug}-{n}" not in named)
        )
    return named


@pytest.mark.parametrize("page", [*PAGES, *MORE], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for target in LINK.findall(without_code(page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{target}: there is no such file"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{target}: no such heading; there are {sorted(anchors(place))}"


def test_a_heading_becomes_the_anchor_that_a_browser_asks_for(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One `b_dec`, two\n## Does the cure help?\n## Same\n## Same\n```\n# no heading\n```\n")
    assert anchors(page) == {"one-b_dec-two", "does-the-cure-help", "same", "same-1"}


def test_every_page_is_in_the_navigation_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    named = re.findall(r"([\w-]+\.md)$", nav, re.MULTILINE)
    made = {*docs_site.PAGES.values(), "index.md"}
    assert sorted(named) == sorted([*(page.name for page in (ROOT / "docs").glob("*.md")), *made])


def test_the_reference_has_every_public_name_once() -> None:
    pages = docs_site.reference()
    for room, module in rooms().items():
        named = [line.rsplit(".", 1)[1] for line in pages[f"api/{room}.md"].splitlines() if line.startswith("::: ")]
        assert sorted(named) == sorted(name for name in module.__all__)
    ground = pages["api/ground.md"]
    for name in top():
        line = next(line for line in pages["api/index.md"].splitlines() if f"[`autopsae.{name}`]" in line)
        assert ") | ground |" not in line or f".{name}" in ground


@pytest.mark.parametrize("address", ["", "https://x.y/z"])
def test_a_link_out_of_the_site_is_words_or_the_address_of_the_file(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs_site, "repository", lambda: address)
    text = (
        "[a](../examples/a.py) [b](../CONTRIBUTING.md#c) [d](files.md#e) [f](https://g.h) ![i](gamma.png) [j](#k)"
    )
    out = f"[a]({address}/blob/HEAD/examples/a.py)" if address else "a"
    expected = f"{out} [b](contributing.md#c) [d](files.md#e) [f](https://g.h) ![i](gamma.png) [j](#k)"
    assert docs_site.links_within_site(text, "docs/page.md") == expected
    assert docs_site.links_within_site("[a](docs/page.md)", "CONTRIBUTING.md") == "[a](page.md)"


def test_the_site_asks_for_no_font_and_no_script_of_others() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "\n  font: false\n" in settings
    assert not re.search(r"^(extra_javascript|extra_css|extra):", settings, re.MULTILINE)
    assert "://" not in settings


@pytest.mark.long
def test_the_site_builds_without_a_warning_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra [docs]")
    words = ["mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    told = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = [*(tmp_path / "site").rglob("*.html")]
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=\"https?:", text), page.name
        links = re.findall(r"<link[^>]+href=\"https?:[^>]*>", text)
        assert not [link for link in links if 'rel="canonical"' not in link], page.name
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.findall(r"url\(https?:|@import", sheet.read_text()), sheet.name
    for module in rooms():
        assert (tmp_path / "site" / "api" / f"{module}.html").read_text().count("doc-heading") > 0, module


def fields_without_words(cls: type) -> list[str]:
    """Public fields of a class without a string under them. What overrides a field has the words of that."""
    [body] = [node.body for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef)]
    inherited = {name for base in cls.__mro__[1:] for name in vars(base).get("__annotations__", {})}
    silent = []
    for field, after in zip_longest(body, body[1:]):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        is_told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if not is_told and not field.target.id.startswith("_") and field.target.id not in inherited:
            silent.append(field.target.id)
    return silent


def test_every_field_of_a_public_class_has_words_under_it() -> None:
    classes = {getattr(module, name) for module in rooms().values() for name in module.__all__}
    silent = {cls.__name__: fields_without_words(cls) for cls in classes if inspect.isclass(cls)}
    assert {name: fields for name, fields in silent.items() if fields} == {}


def test_every_method_of_a_public_class_has_words() -> None:
    for room, module in rooms().items():
        for name in module.__all__:
            value = getattr(module, name)
            for member, attribute in vars(value).items() if inspect.isclass(value) else ():
                if not member.startswith("_") and (
                    inspect.isfunction(attribute) or isinstance(attribute, property)
                ):
                    assert inspect.getdoc(getattr(value, member)), f"autopsae.{room}.{name}.{member}"
