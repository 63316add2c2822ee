"""Laws of the page in a real browser: headless Chromium, driven by Playwright, with axe-core (`make check`)."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autopsae.report.page.write import save_page
from tests.report import pages
from tests.test_docs import ROOT

pytestmark = pytest.mark.long

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = next(
    (place for name in ("chromium", "chromium-browser", "google-chrome") if (place := shutil.which(name))), ""
)
if not CHROMIUM:
    pytest.skip("no Chromium on this machine: apt-get install chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bundle.html shows a result of every kind, many.html 50 layers under 6 remedies with 8,192 latents."""
    folder = tmp_path_factory.mktemp("pages")
    saved = pages.save_all(folder)
    save_page(saved.values(), folder / "bundle.html")
    (folder / "many.json").write_text(json.dumps(pages.many_layers(saved["diagnosis"])))
    pages.save_latents(saved["latents"], folder / "many.csv")
    contexts = pages.many_contexts(json.loads(saved["features"].read_text()))
    (folder / "contexts.json").write_text(json.dumps(contexts))
    save_page([folder / name for name in ("many.json", "many.csv", "contexts.json")], folder / "many.html")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page that is open, with what it said and asked for."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def draw_all(self) -> None:
        """Scroll to every figure."""
        for place in self.page.query_selector_all("section > .figures .plot"):
            place.scroll_into_view_if_needed()
            self.page.wait_for_function("place => place.querySelector('.main-svg') !== null", arg=place)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_draws_all_figures_without_an_error_a_request_or_sideways_scrolling(
    folder: Path, browser: Any, width: int, scheme: str
) -> None:
    opened = Opened(browser, folder / "bundle.html", width=width, scheme=scheme)
    opened.draw_all()
    assert opened.said == []
    assert opened.asked == [(folder / "bundle.html").as_uri()]
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    dark = opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    opened.page.click("#scheme")
    assert opened.page.evaluate("document.documentElement.dataset.scheme") != scheme


@pytest.mark.parametrize("width", [400, 1280])
def test_the_table_of_a_figure_scrolls_by_itself(folder: Path, browser: Any, width: int) -> None:
    page = Opened(browser, folder / "bundle.html", width=width).page
    numbers = page.query_selector_all("details.numbers")
    for place in numbers:
        place.query_selector("summary").press("Enter")  # a click may miss while figures above are drawn
        place.wait_for_selector("table", state="attached")
    assert len(numbers) > 10
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_what_is_shown_of_a_mark_stays_within_the_window_of_a_phone(folder: Path, browser: Any) -> None:
    opened = Opened(browser, folder / "bundle.html", width=400)
    opened.draw_all()
    boxes = []
    for place in opened.page.query_selector_all("section > .figures .plot"):
        points = place.query_selector_all(".scatterlayer .point, .barlayer .point")
        for point in (points[:1] + points[-2:]) if points else ():
            point.scroll_into_view_if_needed()
            box = point.bounding_box()
            opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            opened.page.wait_for_timeout(100)
            boxes += place.evaluate(
                """place => [...place.querySelectorAll('.hovertext')].map(one => one.getBoundingClientRect())
                .map(box => [box.left, box.right])"""
            )
    assert len(boxes) > 20
    assert [box for box in boxes if box[0] < 0 or box[1] > 400] == []


@pytest.mark.parametrize("media", ["screen", "print"])
def test_the_name_of_a_column_of_numbers_stands_above_their_last_digits(
    folder: Path, browser: Any, media: str
) -> None:
    page = Opened(browser, folder / "bundle.html").page
    page.emulate_media(media=media)
    right = page.evaluate(
        """[...document.querySelectorAll('section > .scroll thead th')].map(head => {
        const range = document.createRange(); range.selectNode(head.querySelector('button').firstChild);
        return [head.className, head.getBoundingClientRect().right - range.getBoundingClientRect().right] })"""
    )
    numbers = [space for name, space in right if name == "number"]
    assert len(numbers) > 20
    assert max(numbers) < (30 if media == "screen" else 10)  # on the screen an arrow stands behind it


def test_the_first_screen_shows_the_verdict_and_the_forecast(tmp_path: Path, browser: Any) -> None:
    save_page([ROOT / "experiments" / "real_models" / "results" / "smollm2.json"], tmp_path / "smollm2.html")
    page = Opened(browser, tmp_path / "smollm2.html").page
    figure = page.query_selector("figure:has(h4:text-is('Counted now, and expected on more tokens'))")
    page.wait_for_function("one => one.querySelector('.xtitle') !== null", arg=figure)
    for seen in (page.query_selector("header .verdict p"), figure.query_selector(".xtitle")):
        box = seen.bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 900


@pytest.mark.parametrize("width", [400, 1280])
def test_the_buttons_of_a_figure_cover_neither_legend_nor_caption(folder: Path, browser: Any, width: int) -> None:
    opened = Opened(browser, folder / "bundle.html", width=width)
    opened.draw_all()
    heights = opened.page.evaluate("""[...document.querySelectorAll('figure')]
      .filter(one => one.querySelector('.modebar'))
      .map(one => ['figcaption', '.modebar', '.legend, .cartesianlayer']
      .map(kind => one.querySelector(kind).getBoundingClientRect()).map(box => [box.top, box.bottom]))""")
    assert len(heights) > 10
    for caption, buttons, drawn in heights:
        assert caption[1] <= buttons[0] < buttons[1] <= drawn[0]


def test_a_command_breaks_between_its_words_alone(folder: Path, browser: Any, tmp_path: Path) -> None:
    save_page([ROOT / "experiments" / "real_models" / "results" / "smollm2.json"], tmp_path / "smollm2.html")
    page = Opened(browser, tmp_path / "smollm2.html", width=400).page
    lines = page.evaluate(
        """[...document.querySelectorAll('code .word')]
      .map(one => [one.innerText, one.getClientRects().length, one.offsetHeight])"""
    )
    assert ["--prescription", 1] in [line[:2] for line in lines]
    assert len({height for _, _, height in lines}) == 1  # no word is in two lines
    [first, *_] = page.query_selector_all("code")
    assert first.text_content().startswith("autopsae diagnose smollm2 --d-sae 8192 --k 64 ")


@pytest.mark.parametrize("name", ["bundle", "many"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(folder: Path, browser: Any, name: str, scheme: str) -> None:
    opened = Opened(browser, folder / f"{name}.html", scheme=scheme)
    opened.draw_all()
    opened.page.evaluate("document.querySelectorAll('details').forEach((one, n) => { if (n < 4) one.open = true })")
    results = axe.Axe().run(opened.page).response
    assert len(results["passes"]) > 20
    serious = [
        (violation["id"], [node["target"] for node in violation["nodes"]][:3])
        for violation in results["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_names_with_html_are_shown_as_they_are_written_in_figures_too(folder: Path, browser: Any) -> None:
    opened = Opened(browser, folder / "bundle.html")
    opened.draw_all()
    drawn = opened.page.evaluate("[...document.querySelectorAll('svg text')].map(one => one.textContent)")
    assert "<b>hs1</b>" in drawn
    assert any(name.startswith("</script") for name in drawn)
    assert opened.page.evaluate("document.querySelectorAll('svg a').length") == 0
    assert opened.page.evaluate("[...document.querySelectorAll('svg tspan')].every(one => !one.style.fontWeight)")


def test_a_click_on_a_layer_opens_its_details_and_hovering_shows_its_value(folder: Path, browser: Any) -> None:
    opened = Opened(browser, folder / "bundle.html")
    opened.draw_all()
    page = opened.page
    point = page.query_selector(".plot .scatterlayer .trace:nth-child(2) .point:nth-child(2)")
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    place = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*place)
    page.wait_for_selector(".hoverlayer .hovertext")
    shown = page.evaluate("document.querySelector('.hoverlayer .hovertext').textContent")
    assert "%" in shown
    assert page.evaluate("document.querySelectorAll('details.detail[open]').length") == 0
    page.mouse.click(*place)
    page.wait_for_selector("details.detail[open]")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_the_details_of_a_layer_are_made_when_they_are_opened(folder: Path, browser: Any) -> None:
    page = Opened(browser, folder / "many.html").page
    detail = page.query_selector("details.detail")
    assert detail.query_selector("table") is None
    detail.query_selector("summary").click()
    detail.wait_for_selector(".inside table", state="attached")
    for place in detail.query_selector_all(".plot"):
        place.scroll_into_view_if_needed()
        page.wait_for_function("place => place.querySelector('.main-svg') !== null", arg=place)
    assert len(detail.query_selector_all(".plot")) == 3
    numbers = detail.query_selector("details.numbers")
    numbers.query_selector("summary").click()
    numbers.wait_for_selector("table")


def test_a_latent_is_shown_by_its_number_and_by_a_click_on_its_mark(folder: Path, browser: Any) -> None:
    opened = Opened(browser, folder / "many.html")
    page = opened.page
    lookup = page.query_selector(".lookup")
    lookup.query_selector("input").fill("8191")
    page.keyboard.press("Enter")
    said = "document.querySelector('.lookup caption').textContent"
    page.wait_for_function(f"() => {said} === 'latent 8191'")
    assert "8,191" in lookup.query_selector("tbody tr:first-child td").inner_text()
    lookup.query_selector("input").fill("9000")
    page.evaluate("document.querySelector('.lookup form').noValidate = true")
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => {said} === 'There is no latent 9000'")
    place = page.query_selector("figure:has(+ .lookup) .plot, .figures:has(+ .lookup) .plot")
    place.scroll_into_view_if_needed()
    page.wait_for_function("place => place.querySelector('.scatterlayer .point') !== null", arg=place)
    box = place.query_selector(".scatterlayer .trace:last-of-type .point, .scatterlayer .point").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.wait_for_selector(".hoverlayer .hovertext")
    assert "latent " in page.evaluate("document.querySelector('.hoverlayer .hovertext').textContent")
    page.mouse.click(*middle)
    page.wait_for_function(f"() => !{said}.startsWith('There')")
    assert lookup.query_selector("caption").inner_text().startswith("latent ")
    assert len(lookup.query_selector_all(".examples li mark")) >= 1
    assert opened.said == []


def test_a_click_on_any_latent_of_every_figure_of_latents_shows_where_it_fires(folder: Path, browser: Any) -> None:
    opened = Opened(browser, folder / "many.html")
    page, shown = opened.page, list[str]()
    for lookup in page.query_selector_all(".lookup"):
        for latent in ("17", "4095", "8191"):
            lookup.query_selector("input").fill(latent)
            page.keyboard.press("Enter")
            page.wait_for_function(
                "([place, latent]) => place.querySelector('caption').textContent === `latent ${latent}`",
                arg=[lookup, latent],
            )
            marks = [mark.inner_text() for mark in lookup.query_selector_all(".examples mark")]
            assert {*marks} == {f" word{latent}"}
            shown += marks
    assert len(shown) >= 6
    assert opened.said == []


def test_tables_are_sorted_by_numbers_and_keys_alone_suffice(folder: Path, browser: Any) -> None:
    opened = Opened(browser, folder / "bundle.html")
    page = opened.page
    table = page.query_selector("section > .scroll table")
    values = "table => [...table.tBodies[0].rows].map(row => Number(row.cells[1].querySelector('data').value))"
    table.query_selector("thead th:nth-child(2) button").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(values, table) == sorted(page.evaluate(values, table))
    page.keyboard.press("Enter")
    assert page.evaluate(values, table) == sorted(page.evaluate(values, table), reverse=True)
    assert table.query_selector("thead th:nth-child(2)").get_attribute("aria-sort") == "descending"


def test_fifty_layers_are_drawn_and_print(folder: Path, browser: Any) -> None:
    opened = Opened(browser, folder / "many.html")
    page = opened.page
    page.wait_for_selector(".plot .main-svg")
    opened.draw_all()
    assert opened.said == []
    printed = page.pdf()
    assert printed.startswith(b"%PDF")
    assert opened.said == []


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_has_every_figure_whole_in_dark_ink_and_nothing_to_press(
    folder: Path, browser: Any, width: int, scheme: str
) -> None:
    opened = Opened(browser, folder / "bundle.html", width=width, scheme=scheme)
    page = opened.page
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})  # A4 within usual margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    drawn = page.evaluate(
        """[...document.querySelectorAll('section > .figures .plot')].map(place =>
        [...place.querySelectorAll('.main-svg')].map(one => one.getBoundingClientRect().right))"""
    )
    assert len(drawn) > 10
    assert all(rights and max(rights) <= 700 for rights in drawn)
    ink = page.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill")
    assert ink == "rgb(27, 31, 36)"
    pressed = "button, input, .modebar, .arrow, .screen, nav, details.numbers > summary"
    seen = page.evaluate(
        f"""[...document.querySelectorAll({pressed!r})]
        .filter(one => one.getClientRects().length && !one.closest('thead')).map(one => one.outerHTML)"""
    )
    assert seen == []
    assert page.evaluate("[...document.querySelectorAll('.wrote')].every(one => one.open)")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.scheme") == scheme
    assert not page.evaluate("[...document.querySelectorAll('.wrote')].some(one => one.open)")
    assert opened.said == []


def test_paper_breaks_no_figure_and_leaves_no_heading_alone(folder: Path, browser: Any) -> None:
    page = Opened(browser, folder / "bundle.html").page
    page.emulate_media(media="print")
    styles = page.evaluate(
        """Object.fromEntries(['figure', '.code', '.scroll', '.wrote', 'h3', 'h4', 'caption', 'thead'].map(kind => {
        const style = getComputedStyle(document.querySelector(kind));
        return [kind, [style.breakInside, style.breakAfter, style.display]] }))"""
    )
    assert [styles[kind][0] for kind in ("figure", ".code", ".scroll", ".wrote")] == ["avoid"] * 4
    assert [styles[kind][1] for kind in ("h3", "h4", "caption")] == ["avoid"] * 3
    assert styles["thead"][2] == "table-header-group"


def test_the_two_figures_of_an_autopsy_fit_on_the_first_sheet_within_its_margins(
    folder: Path, browser: Any, tmp_path: Path
) -> None:
    save_page([folder / "autopsy.json", folder / "autopsy.csv"], tmp_path / "autopsy.html")
    page = Opened(browser, tmp_path / "autopsy.html", width=725).page  # Letter without the margins of the style
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    bottoms = page.evaluate(
        "[...document.querySelectorAll('section:first-child figure')].map(a => a.getBoundingClientRect().bottom)"
    )
    assert len(bottoms) == 2
    assert max(bottoms) < 957
    margins = "[...document.styleSheets[0].cssRules].filter(rule => rule instanceof CSSPageRule)[0].style.margin"
    assert page.evaluate(margins) == "13mm 12mm"


@pytest.mark.parametrize("media", ["screen", "print"])
def test_no_name_of_a_usual_length_is_broken_in_a_table(folder: Path, browser: Any, media: str) -> None:
    page = Opened(browser, folder / "bundle.html", width=400).page
    page.emulate_media(media=media)
    lines = page.evaluate(
        """[...document.querySelectorAll('th[scope="row"]')].filter(one => one.getClientRects().length).map(one => {
        const range = document.createRange(); range.selectNodeContents(one);
        const tops = new Set([...range.getClientRects()].map(rect => Math.round(rect.top)));
        return [one.textContent.trim(), tops.size] })"""
    )
    short = [(name, count) for name, count in lines if name and len(name) <= 16 and " " not in name]
    assert len(short) > 10
    assert [name for name, count in short if count > 1] == []


def test_a_caption_is_whole_on_a_phone_above_a_table_that_is_wider(folder: Path, browser: Any) -> None:
    page = Opened(browser, folder / "bundle.html", width=400).page
    seen = page.evaluate(
        """[...document.querySelectorAll('.scroll:not(details .scroll)')].map(one => {
        one.scrollLeft = 60;
        const words = one.querySelector('caption span').getBoundingClientRect();
        return [one.scrollWidth > one.clientWidth, words.left, words.right] })"""
    )
    assert any(is_wider for is_wider, _, _ in seen)
    assert all(left >= 0 and right <= 400 for _, left, right in seen)
