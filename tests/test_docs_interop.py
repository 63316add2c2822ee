"""The page on other libraries says what the rows of their trainings say."""

from pathlib import Path

from experiments.interop import trained

from tests.test_docs_numbers import quoted

PAGE = "docs/interop.md"
TOPK, SAELENS, BATCHTOPK, OWN, JUMPRELU, HELD, SPARSIFY = (
    ("dictionary_learning", "topk"),
    ("SAELens", "topk"),
    ("SAELens", "batchtopk"),
    ("SAELens", "jumprelu"),
    ("SAELens", "jumprelu_at_l0"),
    ("SAELens", "jumprelu_held"),
    ("sparsify", "topk"),
)
BETTER = (SAELENS, BATCHTOPK, SPARSIFY)


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
    assert max(end(kind, "cured", "dead", 5000) for kind in (*BETTER, TOPK)) == 0
    said = [round(100 * end(kind, "default", "dead", 5000), 1) for kind in BETTER]
    sentence = "By default # % are under SAELens' TopK, # % under its BatchTopK and # % under sparsify."
    assert quoted(PAGE, sentence) == said
    later = end(SAELENS, "default", "dead", 1000)
    assert quoted(PAGE, "SAELens' TopK has # % dead after 1,000 steps") == [round(100 * later, 1)]
    jumprelu = [end(JUMPRELU, "cured", "dead", steps) for steps in (2000, 200)]
    by_default = {
        steps: round(100 * end(JUMPRELU, "default", "dead", steps), 1) for steps in (200, 500, 1000, 2000)
    }
    assert max(by_default.values()) - min(by_default.values()) < 0.3
    sentence = "# % after 2,000 steps, from # % after 200; by default # % are dead from the start."
    assert quoted(PAGE, sentence) == [*(round(100 * dead, 1) for dead in jumprelu), by_default[2000]]


def fall(kind: tuple[str, str], name: str, steps: int) -> int:
    """By how many percent the cured number is lower."""
    return round(100 * (1 - ratio(kind, name, steps)))


def test_the_errors_of_other_libraries_are_those_of_the_rows() -> None:
    sentence = (
        "by # % for SAELens' TopK, by # % for its BatchTopK, by # % for sparsify and by # % for "
        "dictionary_learning, at an L0 of # to #."
    )
    fired = [end(kind, arm, "l0", 5000) for kind in (*BETTER, TOPK) for arm in ("default", "cured")]
    falls = [fall(kind, "fvu_typical", 5000) for kind in (*BETTER, TOPK)]
    assert min(falls) > 0
    assert quoted(PAGE, sentence) == [*falls, round(min(fired)), round(max(fired))]
    sentence = (
        "after 2,000 steps is # % lower for SAELens' TopK, # % for its BatchTopK and # % for sparsify. After 5,000 "
        "it is # % lower for BatchTopK and # % for sparsify, and more than twice as high for SAELens' TopK."
    )
    late = [fall(kind, "fvu_raw", 5000) for kind in (BATCHTOPK, SPARSIFY)]
    assert quoted(PAGE, sentence) == [*(fall(kind, "fvu_raw", 2000) for kind in BETTER), *late]
    assert ratio(SAELENS, "fvu_raw", 5000) > 2
    early = [ratio(TOPK, name, steps) for name in ("fvu_raw", "fvu_typical") for steps in (200, 500, 1000)]
    assert (
        max(abs(one - 1) for one in (*early, ratio(TOPK, "fvu_typical"), ratio(TOPK, "fvu_typical", 5000))) < 0.03
    )
    levels = [round(end(JUMPRELU, arm, "l0"), 1) for arm in ("cured", "default")]
    assert quoted(PAGE, "Here its L0 is # beside # by default, and its error is # % lower") == [
        *levels,
        round(100 * (1 - ratio(JUMPRELU, "fvu_raw"))),
    ]
    held = {name: [end(HELD, arm, name, 5000) for arm in ("cured", "default")] for name in ("l0", "dead")}
    sentence = (
        "nearer to 32 (# under the cure, # by default), and # % are dead under the cure after 5,000 steps, # % by "
        "default. The error without strays is # % lower under the cure."
    )
    shares = [round(100 * dead, 1) for dead in held["dead"]]
    levels = [round(l0, 1) for l0 in held["l0"]]
    assert quoted(PAGE, sentence) == [*levels, *shares, fall(HELD, "fvu_typical", 5000)]
    own = [round(end(OWN, arm, "l0")) for arm in ("default", "cured")]
    assert quoted(PAGE, "settings # latents fire on a token by default after 2,000 steps and # under") == own


def test_raw_errors_of_one_late_step_are_those_of_the_rows() -> None:
    sentence = (
        "after 5,000 steps it is # for dictionary_learning by default and # cured, and # for SAELens' TopK by "
        "default and # cured, while the errors without strays are within # % of each other."
    )
    raw = [end(kind, arm, "fvu_raw", 5000) for kind in (TOPK, SAELENS) for arm in ("default", "cured")]
    typical = [abs(ratio(kind, "fvu_typical", 5000) - 1) for kind in (TOPK, SAELENS)]
    assert quoted(PAGE, sentence) == [*(round(value, 5) for value in raw), round(100 * max(typical))]
