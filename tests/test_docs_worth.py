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
MEASURED = ("unirep64", "spliceai", "unirep", "dinov2", "smollm2")
SCORED = ("unirep64", "unirep", "smollm2")


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


def dead(layer: str, arm: str, *, times: float = 1) -> float:
    return mean(float(row["end"]["dead"]) for row in ends(layer, arm, times=times))


def alive(layer: str, arm: str, *, times: float = 1) -> int:
    return round((1 - dead(layer, arm, times=times)) * times * LAYERS[layer].d_sae)


def test_the_layers_of_the_text_are_those_of_the_rows() -> None:
    seeds = {layer: len(ends(layer, "prescribed")) for layer in LAYERS}
    few = dict.fromkeys(("unirep", "dinov2", "smollm2"), 1)
    assert {layer: n for layer, n in seeds.items() if n} == {"unirep64": 3, "spliceai": 3, **few}


def test_who_lives_in_the_text_is_what_the_rows_say() -> None:
    most = max(dead(layer, "prescribed") for layer in MEASURED)
    larger = [dead(layer, "baseline", times=4) for layer in MEASURED]
    sentence = (
        "At most # % of the prescribed SAE's latents are dead at the end, and of the larger baseline's # to # %."
    )
    assert quoted(PAGE, sentence) == [round(100 * share) for share in (most, min(larger), max(larger))]
    numbers = {layer: (alive(layer, "prescribed"), alive(layer, "baseline", times=4)) for layer in MEASURED}
    assert [cured > other for cured, other in numbers.values()] == [True, True, True, False, False]
    sentence = "on DINOv2 # beside #, and on SmolLM2 # beside #."
    assert quoted(PAGE, sentence) == [*numbers["dinov2"], *numbers["smollm2"]]
    equal = [dead(layer, "baseline") for layer in MEASURED]
    assert min(equal[:4]) >= 0.5
    assert quoted(PAGE, "where # % die, it has not") == [round(100 * equal[4])]


def test_the_errors_of_the_text_are_those_of_the_rows() -> None:
    errors = [(error(layer, "prescribed"), error(layer, "baseline", times=4)) for layer in MEASURED]
    sentence = (
        "# beside # on UniRep-64, # beside # on SpliceAI, # beside # on UniRep-256 and # beside # on DINOv2. There "
        "the baseline of the same size, half of it dead, has the lowest error, #. On UniRep-256, 512 cured latents "
        "have a lower error (#) than 8,192 of the baseline. On SmolLM2 it is # beside #, and that of the baseline "
        "of the same size #."
    )
    small = ends("unirep", "prescribed", times=0.25)[0]
    others = [error("dinov2", "baseline"), small["end"]["fvu_raw"], *errors[4], error("smollm2", "baseline")]
    said = [*(value for pair in errors[:4] for value in pair), *others]
    assert quoted(PAGE, sentence) == [float(f"{value:.3g}") for value in said]
    assert [cured < larger for cured, larger in errors] == [True, True, True, True, False]
    assert small["end"]["fvu_raw"] < error("unirep", "baseline", times=4)
    lower_than_equal = [error(layer, "prescribed") < error(layer, "baseline") for layer in MEASURED]
    assert lower_than_equal == [True, True, True, False, True]
    changes = [error(layer, "baseline", times=4) / error(layer, "baseline") - 1 for layer in MEASURED]
    assert [change < 0 for change in changes] == [False, False, True, False, True]
    falls = quoted(PAGE, "its error falls by # % on UniRep-256, by # % on SmolLM2")
    assert falls == [round(-100 * changes[2]), round(-100 * changes[4])]
    assert quoted(PAGE, "On SpliceAI centering leaves # % of the latents dead") == [
        round(100 * dead("spliceai", "centered"))
    ]
    assert max(row["end"]["dead"] for row in ends("spliceai", "prescribed")) == 0
    centered = error("smollm2", "centered")
    assert quoted(PAGE, "than centering, which ends at #.") == [float(f"{centered:.3g}")]
    assert errors[4][0] < centered


def test_the_scores_of_the_text_are_those_of_the_rows() -> None:
    larger, equal = ({of: score(of, "baseline", times=times) for of in SCORED} for times in (4, 1))
    centered = {layer: score(layer, "centered") for layer in SCORED}
    sentence = "score # on UniRep-64, those of the centered SAE #; on UniRep-256 it is # and #, on SmolLM2 # and #."
    assert quoted(PAGE, sentence) == [of[layer] for layer in SCORED for of in (larger, centered)]
    sentence = "one on UniRep-256 (# to #) and none on UniRep-64 and SmolLM2"
    assert quoted(PAGE, sentence) == [equal["unirep"], centered["unirep"]]
    assert [equal[layer] < centered[layer] for layer in SCORED] == [False, True, False]
    zeros = [
        score(layer, arm, "mean_with_dead_as_zero", times=times)
        for layer in SCORED
        for arm, times in (("baseline", 4), ("centered", 1))
    ]
    sentence = "counted as 0, it is # beside # on UniRep-64, # beside # on UniRep-256, and # beside # on SmolLM2."
    assert quoted(PAGE, sentence) == zeros


def test_the_verdicts_of_the_text_are_those_of_the_rows() -> None:
    compared = read_compared(STEPS)
    said = [verdict(row["gains"]["prescribed"], row["covered"]) for row in compared]
    assert (len(said), said.count("fewer"), said.count("within a tenth"), said.count("open")) == (9, 1, 4, 4)
    sentence = (
        "Of all nine comparisons of the prescribed SAE with the larger baseline one is fewer, four are within a"
    )
    assert sentence in words(PAGE)
    smollm2 = next(row for row in compared if row["layer"] == "smollm2")
    gains = smollm2["gains"]
    counts = [gains["prescribed"]["covered"], smollm2["concepts"], gains["baseline"]["covered"], smollm2["covered"]]
    sentence = "covers # of # concepts, the baseline of the same size #, and the larger one #; random rows cover #,"
    assert quoted(PAGE, sentence) == [*counts, gains["random rows"]["covered"]]
    covered = {(row["arm"], row["d_sae"]): row for row in read_rows(CONCEPTS) if row["layer"] == "dinov2"}
    counts = [covered[arm]["covered"] for arm in (("random rows", 2048), ("prescribed", 2048), ("baseline", 8192))]
    sentence = "On DINOv2 they cover #, the cured SAE #, the larger baseline # of # concepts"
    assert quoted(PAGE, sentence) == [*counts, covered["prescribed", 2048]["concepts"]]
