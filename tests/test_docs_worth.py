"""The page on what cured SAEs are worth says what the rows say."""

from statistics import mean

from experiments.trained import worth
from experiments.trained.compare import read_compared, verdict
from experiments.trained.layers import LAYERS
from experiments.trained.plan import SCALES
from experiments.trained.rows import Row, read_rows

from tests.test_docs_numbers import quoted, words

PAGE = "docs/worth.md"
STEPS = SCALES["full"].steps


def ends(layer: str, arm: str, *, times: int = 1) -> list[Row]:
    rows = read_rows()
    size = times * LAYERS[layer].d_sae
    return [
        row for row in rows if (row["layer"], row["arm"], row["d_sae"], row["steps"]) == (layer, arm, size, STEPS)
    ]


def error(layer: str, arm: str, *, times: int = 1) -> float:
    return mean(float(row["end"]["fvu_raw"]) for row in ends(layer, arm, times=times))


def score(arm: str, key: str, *, times: int = 1) -> float:
    return round(mean(float(row["monosemanticity"][key]) for row in ends("unirep64", arm, times=times)), 3)


def test_the_tables_are_those_of_the_rows() -> None:
    assert worth.tables(STEPS) in worth.PAGE.read_text()


def test_the_numbers_of_the_text_are_those_of_the_rows() -> None:
    errors = [error("unirep64", "centered"), error("unirep64", "baseline", times=4)]
    errors += [error("spliceai", "prescribed"), error("spliceai", "baseline", times=4)]
    sentence = "Their error is lower: # beside # on UniRep-64, and # (as prescribed) beside # on SpliceAI."
    assert quoted(PAGE, sentence) == [float(f"{value:.3g}") for value in errors]
    dead = max(
        mean(row["end"]["dead"] for row in ends(name, "baseline", times=4)) for name in ("unirep64", "spliceai")
    )
    assert quoted(PAGE, "latents are to # % dead") == [round(100 * dead)]
    scores = [score("baseline", "mean", times=4), score("centered", "mean")]
    assert quoted(PAGE, "the living latents of the larger baseline score #, those of the centered SAE #;") == scores
    scores = [
        score(arm, "mean_with_dead_as_zero", times=times) for arm, times in (("baseline", 4), ("centered", 1))
    ]
    assert quoted(PAGE, "with a dead one counted as 0, it is # beside #.") == scores
    left = mean(row["end"]["dead"] for row in ends("spliceai", "centered"))
    assert quoted(PAGE, "centering leaves # % of the latents dead at the end") == [round(100 * left)]
    assert max(row["end"]["dead"] for row in ends("spliceai", "prescribed")) == 0


def test_the_verdicts_of_the_text_are_those_of_the_rows() -> None:
    said = [verdict(row["gains"]["prescribed"], row["covered"]) for row in read_compared(STEPS)]
    counts = [said.count(name) for name in ("within a tenth", "open")]
    assert (len(said), counts) == (6, [3, 3])
    assert (
        "Of the six comparisons of the prescribed SAE with the larger baseline three are within a tenth"
        in words(PAGE)
    )
    for layer in ("unirep64", "spliceai"):
        assert len(ends(layer, "baseline", times=4)) == 3
        # Four times the latents buy the baseline nothing.
        assert error(layer, "baseline", times=4) > error(layer, "baseline")
