"""The page on other libraries says what the rows of their trainings say."""

from pathlib import Path

from experiments.interop import trained
from experiments.interop.libraries import KINDS

from tests.test_docs_numbers import quoted

PAGE = "docs/interop.md"
TOPK = "dictionary_learning", "topk"


def end(kind: tuple[str, str], arm: str, name: str, steps: int = 2000) -> float:
    about = {"library": kind[0], "architecture": kind[1], "arm": arm, "steps": steps, "d_sae": 2048}
    (row,) = (row for row in trained.read() if about.items() <= row.items())
    return float(row[name])


def ratio(kind: tuple[str, str], name: str, steps: int = 2000) -> float:
    return end(kind, "cured", name, steps) / end(kind, "default", name, steps)


def test_the_tables_are_those_of_the_rows() -> None:
    page = Path(PAGE).read_text()
    assert trained.table(trained.read()) in page
    assert trained.parts_table(trained.read()) in page


def test_who_dies_in_other_libraries_is_what_the_rows_say() -> None:
    assert all(end(kind, "cured", "dead") == 0 for kind in KINDS)
    said = [end(kind, "default", "dead") for kind in (*KINDS[:2], KINDS[4])]
    sentence = "By default # % are under SAELens' TopK, # % under its BatchTopK and # % under sparsify."
    assert quoted(PAGE, sentence) == [round(100 * dead, 1) for dead in said]
    later = end(KINDS[0], "default", "dead", 1000)
    assert quoted(PAGE, "SAELens' TopK has # % dead after 1,000 steps") == [round(100 * later, 1)]


def test_the_errors_of_other_libraries_are_those_of_the_rows() -> None:
    better = [KINDS[0], KINDS[1], KINDS[4]]
    falls = [round(100 * (1 - ratio(kind, "fvu_raw"))) for kind in better]
    sentence = "raw by # % for SAELens' TopK, by # % for its BatchTopK and by # % for sparsify."
    assert quoted(PAGE, sentence) == falls
    assert all(ratio(kind, "fvu_typical") < 1 for kind in better)
    fired = [end(kind, arm, "l0") for kind in (*better, TOPK) for arm in ("default", "cured")]
    assert quoted(PAGE, "At an L0 of # to # the error") == [round(min(fired)), round(max(fired))]
    early = [ratio(TOPK, name, steps) for name in ("fvu_raw", "fvu_typical") for steps in (200, 500, 1000)]
    assert max(abs(one - 1) for one in early) < 0.03
    assert quoted(PAGE, "the cured SAE has # times the raw error") == [round(ratio(TOPK, "fvu_raw"), 1)]
    assert quoted(PAGE, "without strays it is # % higher") == [round(100 * (ratio(TOPK, "fvu_typical") - 1))]
    jumprelu = [round(end(KINDS[2], arm, "l0")) for arm in ("default", "cured")]
    assert quoted(PAGE, "# latents fire on a token by default and # under the cure") == jumprelu
