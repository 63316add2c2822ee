"""The page on what cured SAEs are worth says what the rows say."""

from collections.abc import Iterable
from statistics import mean

from experiments.trained import worth
from experiments.trained.compare import read_compared, verdict
from experiments.trained.layers import LAYERS
from experiments.trained.plan import SCALES
from experiments.trained.rows import CONCEPTS, Row, read_rows

from tests.test_docs_numbers import quoted, words

PAGE = "docs/worth.md"
STEPS = SCALES["full"].steps
SEVERE = ("unirep64", "spliceai", "unirep", "dinov2", "gemma3-hs2", "gemma3-hs11")
"""Layers on which half of a baseline or more dies."""
MEASURED = (*SEVERE, "smollm2", "antiberty")
SCORED = ("unirep64", "unirep", "smollm2", "antiberty", "gemma3-hs2", "gemma3-hs11")
GEMMA = SEVERE[4:]


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


def rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.3g}") for value in values]


def covered(layer: str, *arms: tuple[str, int]) -> list[float]:
    """Concepts of each (arm, number of latents), means over seeds."""
    rows = [row for row in read_rows(CONCEPTS) if (row["layer"], row["steps"]) == (layer, STEPS)]
    return rounded(
        mean(row["covered"] for row in rows if (row["arm"], row["d_sae"]) == (arm, size)) for arm, size in arms
    )


def test_the_layers_of_the_text_are_those_of_the_rows() -> None:
    seeds = {layer: len(ends(layer, "prescribed")) for layer in LAYERS}
    few = {**dict.fromkeys(("unirep", "antiberty", "dinov2", "smollm2", GEMMA[1]), 1), GEMMA[0]: 2}
    assert {layer: n for layer, n in seeds.items() if n} == {"unirep64": 3, "spliceai": 3, **few}


def test_who_lives_in_the_text_is_what_the_rows_say() -> None:
    most = max(dead(layer, "prescribed") for layer in MEASURED)
    larger = [dead(layer, "baseline", times=4) for layer in MEASURED]
    sentence = (
        "At most # % of the prescribed SAE's latents are dead at the end, and of the larger baseline's # to # %."
    )
    assert quoted(PAGE, sentence) == [round(100 * share) for share in (most, min(larger), max(larger))]
    numbers = {layer: (alive(layer, "prescribed"), alive(layer, "baseline", times=4)) for layer in MEASURED}
    more = {layer for layer, (cured, other) in numbers.items() if cured > other}
    assert more == {"unirep64", "spliceai", "unirep", *GEMMA}
    sentence = (
        "(on Gemma hs2 # beside #, on hs11 # beside #); on DINOv2 # beside #, on SmolLM2 # beside #, and on "
        "AntiBERTy # beside #."
    )
    told = (*GEMMA, "dinov2", "smollm2", "antiberty")
    assert quoted(PAGE, sentence) == [number for layer in told for number in numbers[layer]]
    equal = {layer: dead(layer, "baseline") for layer in MEASURED}
    assert [layer for layer in MEASURED if equal[layer] >= 0.5] == [*SEVERE]
    sentence = "where # % (hs2) and # % (hs11) of it die"
    assert quoted(PAGE, sentence) == [round(100 * equal[layer]) for layer in GEMMA]
    sentence = "Where # % die (SmolLM2) or # % (AntiBERTy), it has not"
    assert quoted(PAGE, sentence) == [round(100 * equal[layer]) for layer in MEASURED[6:]]


def test_the_errors_of_the_text_are_those_of_the_rows() -> None:
    errors = {
        layer: (error(layer, "prescribed"), error(layer, "baseline", times=4), error(layer, "baseline"))
        for layer in MEASURED
    }
    sentence = (
        "# beside # on UniRep-64, # beside # on SpliceAI, # beside # on UniRep-256, # beside # on DINOv2, # "
        "beside # on Gemma hs2 and # beside # on hs11. On DINOv2 the baseline of the same size, half of it dead, "
        "has the lowest error, #. On UniRep-256, 512 cured latents have a lower error (#) than 8,192 of the "
        "baseline. On SmolLM2 it is # beside #, and that of the baseline of the same size #; on AntiBERTy # "
        "beside #."
    )
    small = ends("unirep", "prescribed", times=0.25)[0]["end"]["fvu_raw"]
    said = [value for layer in SEVERE for value in errors[layer][:2]]
    said += [errors["dinov2"][2], small, *errors["smollm2"], *errors["antiberty"][:2]]
    assert quoted(PAGE, sentence) == rounded(said)
    assert [layer for layer, (cured, larger, _) in errors.items() if cured < larger] == [*SEVERE]
    assert {layer for layer, (cured, _, equal) in errors.items() if cured >= equal} == {"dinov2", "antiberty"}
    assert min(errors["dinov2"]) == errors["dinov2"][2]
    assert small < errors["unirep"][1]
    changes = {layer: larger / equal - 1 for layer, (_, larger, equal) in errors.items()}
    assert {layer for layer, change in changes.items() if change > 0} == {"unirep64", "spliceai", "dinov2"}
    sentence = "falls by # % on UniRep-256, by # % on Gemma hs11, by # % on SmolLM2, by # % or less on AntiBERTy"
    least = min(changes["antiberty"], changes["gemma3-hs2"])
    told = [changes["unirep"], changes["gemma3-hs11"], changes["smollm2"], least]
    assert quoted(PAGE, sentence) == [round(-100 * change) for change in told]


def test_the_prescription_and_the_papers_cure_are_compared_as_the_rows_say() -> None:
    same = {layer for layer in MEASURED if ends(layer, "prescribed")[0]["remedy"] == "median"}
    assert same == {"unirep64", "unirep", "dinov2"}
    assert quoted(PAGE, "On SpliceAI centering leaves # % of the latents dead") == [
        round(100 * dead("spliceai", "centered"))
    ]
    assert max(row["end"]["dead"] for row in ends("spliceai", "prescribed")) == 0
    centered = {layer: error(layer, "centered") for layer in ("smollm2", "gemma3-hs2")}
    assert quoted(PAGE, "than centering, which ends at #.") == rounded([centered["smollm2"]])
    assert error("smollm2", "prescribed") < centered["smollm2"]
    sentence = "On Gemma hs2 centering leaves # % dead and the prescription # %;"
    assert quoted(PAGE, sentence) == [round(100 * dead("gemma3-hs2", arm)) for arm in ("centered", "prescribed")]
    sentence = "they cover nearly as many concepts, and the error of centering is lower, #."
    assert quoted(PAGE, sentence) == rounded([centered["gemma3-hs2"]])
    assert centered["gemma3-hs2"] < error("gemma3-hs2", "prescribed")
    errors = [error("gemma3-hs11", arm) for arm in ("prescribed", "centered")]
    assert max(errors) < 1.005 * min(errors)
    more, fewer = covered("gemma3-hs11", ("centered", 2048), ("prescribed", 2048))
    assert more - fewer == 2
    sentence = "that was too mild: # % die, and none under centering."
    assert quoted(PAGE, sentence) == [round(100 * dead("antiberty", "prescribed"))]
    assert dead("antiberty", "centered") == 0


def test_the_scores_of_the_text_are_those_of_the_rows() -> None:
    larger, equal = ({of: score(of, "baseline", times=times) for of in SCORED} for times in (4, 1))
    centered = {layer: score(layer, "centered") for layer in SCORED}
    sentence = (
        "score # on UniRep-64, those of the centered SAE #; on UniRep-256 it is # and #, on SmolLM2 # and #, on "
        "AntiBERTy # and #, on Gemma hs2 # and #, on Gemma hs11 # and #."
    )
    assert quoted(PAGE, sentence) == [of[layer] for layer in SCORED for of in (larger, centered)]
    sentence = (
        "one on UniRep-256 (# to #), Gemma hs2 (# to #) and Gemma hs11 (# to #), and none on UniRep-64, SmolLM2 "
        "and AntiBERTy."
    )
    rises = [layer for layer in SCORED if equal[layer] < centered[layer]]
    assert rises == ["unirep", *GEMMA]
    assert quoted(PAGE, sentence) == [of[layer] for layer in rises for of in (equal, centered)]
    zeros = [
        score(layer, arm, "mean_with_dead_as_zero", times=times)
        for layer in SCORED
        for arm, times in (("baseline", 4), ("centered", 1))
    ]
    sentence = (
        "counted as 0, it is # beside # on UniRep-64, # beside # on UniRep-256, # beside # on SmolLM2, # beside "
        "# on AntiBERTy, # beside # on Gemma hs2, and # beside # on Gemma hs11."
    )
    assert quoted(PAGE, sentence) == zeros


def test_the_verdicts_of_the_text_are_those_of_the_rows() -> None:
    compared = read_compared(STEPS)
    said = [verdict(row["gains"]["prescribed"], row["covered"]) for row in compared]
    counts = {word: said.count(word) for word in ("more", "fewer", "within a tenth", "open")}
    assert (len(said), counts) == (13, {"more": 3, "fewer": 1, "within a tenth": 4, "open": 5})
    sentence = (
        "Of all thirteen comparisons of the prescribed SAE with the larger baseline three are more, one is fewer, "
        "four are within a tenth and five open."
    )
    assert sentence in words(PAGE)


def test_the_concepts_of_the_text_are_those_of_the_rows() -> None:
    names = ("prescribed", "baseline", "random rows", "auxk", "centered")
    cured, equal, chance, auxk, centered = ((name, 2048) for name in names)
    larger = ("baseline", 8192)
    sentence = (
        "On Gemma hs11 the prescribed SAE covers # of 59 concepts and the centered one #; AuxK covers #, the "
        "baseline of the same size #, the larger one #, and random rows #:"
    )
    assert quoted(PAGE, sentence) == covered(GEMMA[1], cured, centered, auxk, equal, larger, chance)
    sizes = {
        name: covered(GEMMA[1], *((name, size) for size in (512, 2048, 8192)))
        for name in ("prescribed", "centered", "baseline")
    }
    sentence = "the prescribed SAE covers #, # and #, the centered one #, # and #, and the baseline #, # and #"
    assert quoted(PAGE, sentence) == [*sizes["prescribed"], *sizes["centered"], *sizes["baseline"]]
    assert sizes["prescribed"][0] == sizes["baseline"][2]
    few, many = (error(GEMMA[1], arm, times=times) for arm, times in (("prescribed", 0.25), ("baseline", 4)))
    assert quoted(PAGE, "of the baseline, at a lower error (# beside #).") == rounded([few, many])
    sentence = (
        "covers # of 59 concepts, and the centered one #; AuxK covers #, the baseline of the same size #, and the "
        "larger one #: fewer than random rows, which cover #."
    )
    assert quoted(PAGE, sentence) == covered(GEMMA[0], cured, centered, auxk, equal, larger, chance)
    sentence = "a cured SAE of 2,048 latents knows # and # of 59 concepts, and a baseline of 8,192 knows # and #."
    assert quoted(PAGE, sentence) == [*(covered(layer, sae)[0] for sae in (cured, larger) for layer in GEMMA)]
    sentence = "it also knows more concepts: # of 59 beside # (hs2), and # beside # (hs11)."
    assert quoted("README.md", sentence) == [n for layer in GEMMA for n in covered(layer, cured, larger)]
    sentence = (
        "covers # of 59 concepts, the baseline of the same size #, and the larger one #; random rows cover #."
    )
    assert quoted(PAGE, sentence) == covered("smollm2", cured, equal, larger, chance)
    sentence = "On DINOv2 they cover #, the cured SAE #, the larger baseline # of 23 concepts"
    assert quoted(PAGE, sentence) == covered("dinov2", chance, cured, larger)
    concepts = {(row["layer"], row["concepts"]) for row in read_compared(STEPS)}
    assert {*((layer, 59) for layer in (*GEMMA, "smollm2")), ("dinov2", 23)} <= concepts
