"""The page on what cured SAEs are worth says what the rows say."""

from statistics import mean

from experiments.trained import worth
from experiments.trained.compare import read_compared, verdict
from experiments.trained.layers import LAYERS
from experiments.trained.plan import SCALES
from experiments.trained.rows import CONCEPTS, Row, read_rows

from tests.test_docs_numbers import quoted, words

PAGE = "docs/worth.md"
STEPS = SCALES["full"].steps
MEASURED = ("unirep64", "spliceai", "unirep", "dinov2")


def ends(layer: str, arm: str, *, times: float = 1) -> list[Row]:
    rows = read_rows()
    size = times * LAYERS[layer].d_sae
    return [
        row for row in rows if (row["layer"], row["arm"], row["d_sae"], row["steps"]) == (layer, arm, size, STEPS)
    ]


def error(layer: str, arm: str, *, times: float = 1) -> float:
    return mean(float(row["end"]["fvu_raw"]) for row in ends(layer, arm, times=times))


def score(layer: str, arm: str, key: str = "mean", *, times: float = 1) -> float:
    return round(mean(float(row["monosemanticity"][key]) for row in ends(layer, arm, times=times)), 3)


def test_the_tables_are_those_of_the_rows() -> None:
    assert worth.tables(STEPS) in worth.PAGE.read_text()


def test_the_layers_of_the_text_are_those_of_the_rows() -> None:
    seeds = {layer: len(ends(layer, "prescribed")) for layer in LAYERS}
    assert {layer: n for layer, n in seeds.items() if n} == {"unirep64": 3, "spliceai": 3, "unirep": 1, "dinov2": 1}


def test_the_errors_of_the_text_are_those_of_the_rows() -> None:
    errors = [(error(layer, "prescribed"), error(layer, "baseline", times=4)) for layer in MEASURED]
    sentence = (
        "# beside # on UniRep-64, # beside # on SpliceAI, # beside # on UniRep-256 and # beside # on DINOv2. There "
        "the baseline of the same size, half of it dead, has the lowest error, #. On UniRep-256, 512 cured latents "
        "have a lower error (#) than 8,192 of the baseline."
    )
    small = ends("unirep", "prescribed", times=0.25)[0]
    others = [error("dinov2", "baseline"), small["end"]["fvu_raw"]]
    said = [*(value for pair in errors for value in pair), *others]
    assert quoted(PAGE, sentence) == [float(f"{value:.3g}") for value in said]
    assert all(cured < larger for cured, larger in errors)
    assert small["end"]["fvu_raw"] < error("unirep", "baseline", times=4)
    lower_than_equal = [error(layer, "prescribed") < error(layer, "baseline") for layer in MEASURED]
    assert lower_than_equal == [True, True, True, False]
    dead = [mean(row["end"]["dead"] for row in ends(layer, "baseline", times=4)) for layer in MEASURED]
    assert quoted(PAGE, "latents are to # to # % dead") == [round(100 * end(dead)) for end in (min, max)]
    changes = [error(layer, "baseline", times=4) / error(layer, "baseline") - 1 for layer in MEASURED]
    assert [change < 0 for change in changes] == [False, False, True, False]
    assert quoted(PAGE, "its error falls by # % on UniRep-256") == [round(-100 * changes[2])]
    left = mean(row["end"]["dead"] for row in ends("spliceai", "centered"))
    assert quoted(PAGE, "There centering leaves # % of the latents dead at the end") == [round(100 * left)]
    assert max(row["end"]["dead"] for row in ends("spliceai", "prescribed")) == 0


def test_the_scores_of_the_text_are_those_of_the_rows() -> None:
    larger, equal = (
        {layer: score(layer, "baseline", times=times) for layer in ("unirep64", "unirep")} for times in (4, 1)
    )
    centered = {layer: score(layer, "centered") for layer in ("unirep64", "unirep")}
    sentence = "score # on UniRep-64, those of the centered SAE #; on UniRep-256 it is # and #."
    said = [larger["unirep64"], centered["unirep64"], larger["unirep"], centered["unirep"]]
    assert quoted(PAGE, sentence) == said
    sentence = "there is one on UniRep-256 (# to #) and none on UniRep-64"
    assert quoted(PAGE, sentence) == [equal["unirep"], centered["unirep"]]
    assert equal["unirep"] < centered["unirep"]
    assert equal["unirep64"] > centered["unirep64"]
    zeros = [
        score(layer, arm, "mean_with_dead_as_zero", times=times)
        for layer in ("unirep64", "unirep")
        for arm, times in (("baseline", 4), ("centered", 1))
    ]
    assert quoted(PAGE, "with a dead one counted as 0, it is # beside #, and # beside #.") == zeros


def test_the_verdicts_of_the_text_are_those_of_the_rows() -> None:
    said = [verdict(row["gains"]["prescribed"], row["covered"]) for row in read_compared(STEPS)]
    assert (len(said), said.count("within a tenth"), said.count("open")) == (8, 4, 4)
    sentence = "Of the eight comparisons of the prescribed SAE with the larger baseline four are within a tenth and"
    assert sentence in words(PAGE)
    covered = {(row["arm"], row["d_sae"]): row for row in read_rows(CONCEPTS) if row["layer"] == "dinov2"}
    counts = [covered[arm]["covered"] for arm in (("random rows", 2048), ("prescribed", 2048), ("baseline", 8192))]
    sentence = "On DINOv2 they cover #, the cured SAE #, the larger baseline # of # concepts"
    assert quoted(PAGE, sentence) == [*counts, covered["prescribed", 2048]["concepts"]]
