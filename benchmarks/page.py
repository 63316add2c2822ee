"""A page of 50 layers under 6 remedies and 8,192 latents with their top activations, opened in headless Chromium.

Seconds from the navigation to the first figure and to an idle page, and the time of the processor that the page's
main thread took until then, which other processes change little; then what a click on a latent takes, and the
details of a layer. Medians of several pages. Run as `python -m benchmarks.page`, with Playwright and a Chromium
installed.
"""

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.report import pages

from autopsae.report.page.write import save_page
from benchmarks.harness import save

ROUNDS, LAYERS, LATENTS = 9, 50, 8192
_WATCH = """
() => {
  const see = () => {
    if (!window.first && document.querySelector('.plot .main-svg')) {
      window.first = performance.now();
      requestIdleCallback(() => { window.idle = performance.now(); });
    }
  };
  new MutationObserver(see).observe(document, { childList: true, subtree: true });
}
"""
_LATENT = """
() => new Promise(done => {
  const start = performance.now(), place = document.querySelector('.lookup');
  const words = place.querySelector('caption');
  new MutationObserver(() => done(performance.now() - start)).observe(words, { childList: true });
  place.querySelector('input').value = 4095;
  place.querySelector('form').requestSubmit();
})
"""
_LAYER = """
() => new Promise(done => {
  const start = performance.now(), layer = document.querySelector('details.detail');
  new MutationObserver(() => {
    const plots = layer.querySelectorAll('.plot');
    if (plots.length && [...plots].every(one => one.querySelector('.main-svg'))) done(performance.now() - start);
  }).observe(layer, { childList: true, subtree: true });
  layer.scrollIntoView();
  layer.open = true;
})
"""


def write_page(folder: Path) -> Path:
    """The page, as small results are made large for it."""
    saved = pages.save_all(folder)
    (folder / "layers.json").write_text(json.dumps(pages.many_layers(saved["diagnosis"], LAYERS)))
    pages.save_latents(saved["latents"], folder / "latents.csv", LATENTS)
    contexts = pages.many_contexts(json.loads(saved["features"].read_text()), LATENTS)
    (folder / "contexts.json").write_text(json.dumps(contexts))
    save_page([folder / name for name in ("layers.json", "latents.csv", "contexts.json")], folder / "page.html")
    return folder / "page.html"


def open_page(browser: Any, page: Path) -> dict[str, float]:
    """What one opening takes, in seconds."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.add_init_script(f"({_WATCH})()")
    tools = tab.context.new_cdp_session(tab)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.goto(page.as_uri())
    tab.wait_for_function("() => window.idle")
    told = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
    seconds = {
        "first figure": tab.evaluate("() => window.first") / 1000,
        "idle": tab.evaluate("() => window.idle") / 1000,
        "processor": told["TaskDuration"],
        "scripts": told["ScriptDuration"],
        "latent": tab.evaluate(_LATENT) / 1000,
        "layer": tab.evaluate(_LAYER) / 1000,
    }
    tab.close()
    return seconds


def main() -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_page(Path(folder))
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        open_page(browser, page)  # the first one fills the caches of the browser
        rounds = [open_page(browser, page) for _ in range(ROUNDS)]
        result = {
            "layers": LAYERS,
            "latents": LATENTS,
            "megabytes": round(page.stat().st_size / 1e6, 2),
            "chromium": browser.version,
            "seconds": {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]},
            "least": {name: round(min(one[name] for one in rounds), 3) for name in rounds[0]},
        }
        browser.close()
    save("page", result)


if __name__ == "__main__":
    main()
