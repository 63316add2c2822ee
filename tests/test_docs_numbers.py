"""The figures that README and docs quote are those of the result files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from experiments.interop import trained as libraries
from experiments.outliers_2605_31518 import table as claims
from experiments.real_models import table as births
from experiments.rows import Row
from experiments.survival import ageing, policy_rows, prescription, resampled, summary, trained_death
from experiments.survival.policy_rows import shares
from experiments.training import cure_rows, origin, wander
from experiments.training import table as trainings

ROOT = Path(__file__).parents[1]
SURVIVAL = ROOT / "experiments" / "survival" / "results"
README, FORECAST, LIMITS = "README.md", "docs/forecast.md", "docs/limits.md"


def words(page: str) -> str:
    """A page's text on one line."""
    return " ".join((ROOT / page).read_text().split())


def quoted(page: str, sentence: str) -> list[float]:
    """The numbers of a sentence of a page, in which each stands as #."""
    pattern = re.escape(sentence).replace(r"\ ", " ").replace(r"\#", r"(\d[\d,]*\.?\d*)")
    matches = [*re.finditer(pattern, words(page))]
    assert len(matches) == 1, f"{page}: expected once: {sentence!r}, got {len(matches)}"
    return [float(number.rstrip(".").replace(",", "")) for number in matches[0].groups()]


def results(name: str) -> Any:
    return json.loads((SURVIVAL / f"{name}.json").read_text())


def benchmark(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def judging() -> list[dict[str, Any]]:
    """The rows of the validation that judge the forecast."""
    return [row for row in results("validation") if row["model"] not in summary.CHOSEN_ON]


def test_readme_says_how_many_claims_hold_as_the_table_of_claims_does() -> None:
    entries = json.loads((ROOT / "experiments/outliers_2605_31518/results/claims.json").read_text())
    held = [int(number) for number in re.findall(r"(\d+) of (?:the paper's )?\d+", claims.counts(entries))]
    totals = [int(number) for number in re.findall(r"of (?:the paper's )?(\d+)", claims.counts(entries))]
    sentence = "At full scale # of the paper's # claims hold, at quick scale # of #."
    assert quoted(README, sentence) == [held[0], totals[0], held[2], totals[2]]
    sentence = "Of this project's own # expectations, # hold at full scale and # at quick scale."
    assert quoted(README, sentence) == [totals[1], held[1], held[3]]
    assert quoted(README, "Of the paper's # claims on them, # hold.") == [totals[4], held[4]]


def test_the_limits_say_how_far_off_the_forecast_is_where_it_is_judged() -> None:
    rows = judging()
    mean, worst = summary.errors(rows, lambda row: float(row["predicted"]))
    layers = len({(row["model"], row["layer"]) for row in rows})
    sentence = "The forecast is # points off on average, # at worst, over # hidden states of the three networks"
    assert quoted(LIMITS, sentence) == [round(mean, 1), round(worst, 1), layers]


def test_the_limits_compare_prescriptions_as_their_results_do() -> None:
    rules = results("prescription")["rules"]
    ours, paper = rules["all"]["prescribed"], rules["all"]["paper"]
    sentence = "under 1 % dead on # (the paper's rule on #), and also within 5 % of the best raw error on # (#)"
    both = [found[key] for key in ("few_dead", "few_dead_and_near_best") for found in (ours, paper)]
    assert quoted(LIMITS, sentence) == both
    constant = rules["all"]["whiten_0.3"]["few_dead"], rules["all"]["whiten_0.15"]["few_dead_and_near_best"]
    sentence = "alpha 0.3 everywhere leaves under 1 % dead on #, alpha 0.15 everywhere is near the best on #"
    assert quoted(LIMITS, sentence) == [*constant]
    assert quoted(LIMITS, "The rule of prescription was set on # of the #.") == [
        ours["layers"] - rules["judged"]["prescribed"]["layers"],
        ours["layers"],
    ]
    alike = [rules["judged"][rule] for rule in ("prescribed", "median", "whiten_0.15", "whiten_0.3")]
    assert {(rule["few_dead"], rule["few_dead_and_near_best"]) for rule in alike} == {(5, 4)}


def test_the_comparison_of_prescriptions_is_of_the_rows_that_were_trained() -> None:
    kept, trained = results("prescription"), results("training")
    assert kept["rules"] == prescription.rules(kept["rows"])
    shared = ("model", "layer", "k", "remedy", "dead_end", "fvu_raw")
    assert [[row[key] for key in shared] for row in kept["rows"]] == [
        [row[key] for key in shared] for row in trained
    ]


def test_the_table_of_rules_is_that_of_the_results() -> None:
    rules = results("prescription")["rules"]
    names = {
        "what is prescribed": "prescribed",
        "median (here the paper's rule)": "median",
        "alpha 0.15": "whiten_0.15",
    }
    for shown, rule in {**names, "alpha 0.3": "whiten_0.3", "alpha 0.5": "whiten_0.5"}.items():
        all_, judged = rules["all"][rule], rules["judged"][rule]
        cells = [shown, all_["few_dead"], all_["few_dead_and_near_best"]]
        cells += [f"{all_['over_best_mean']:.3f}, {all_['over_best_worst']:.3f}"]
        cells += [judged["few_dead"], judged["few_dead_and_near_best"]]
        assert f"| {' | '.join(map(str, cells))} |" in words(FORECAST)


def test_the_closed_forms_are_as_far_off_as_quoted() -> None:
    layers = results("closed_form")["layers"]
    off = [round(100 * layers["topk"], 1), round(100 * layers["relu"], 1)]
    sentence = "The closed forms are # points (TopK) and # points (ReLU) off on average over the # layers"
    assert quoted(LIMITS, sentence) == [*off, layers["layers"]]
    sentence = "on the # layers that the paper's authors released: # points (TopK) and # points (ReLU) off"
    assert quoted(FORECAST, sentence) == [layers["layers"], *off]


def test_the_forecast_from_few_images_is_as_quoted() -> None:
    said = {row["span"]: row for row in results("few_documents") if row["remedy"] == "median"}
    few, fewest = said[16_384], said[4096]
    percent = [round(100 * few[key]) for key in ("predicted", "low", "high", "counted")]
    sentence = "tokens of the first 64 images forecast # % (# to #) where # % are counted"
    assert quoted(FORECAST, sentence) == percent
    sentence = "those of the first 16 images # % (# to #). `effective_tokens` was # and #;"
    worth = [round(row["effective_tokens"]) for row in (few, fewest)]
    assert quoted(FORECAST, sentence) == [
        *(round(100 * fewest[key]) for key in ("predicted", "low", "high")),
        *worth,
    ]


def test_the_samples_of_the_resampled_layers_are_as_many_as_quoted() -> None:
    rows = results("resampling")
    apart = {row["layer"] for row in rows} - resampled.CHOSEN_ON
    layers = {row["layer"] for row in rows}
    draws = [min(row["draws"] for row in rows if (row["layer"] in apart) == is_apart) for is_apart in (False, True)]
    sentence = (
        "# layers of seven networks, with which the choices of the forecast were made (chosen on), and # other"
    )
    assert quoted(FORECAST, sentence) == [len(layers - apart), len(apart)]
    assert quoted(FORECAST, "drawn from all tokens (# of the first, # of the others)") == draws
    assert {row["tokens"] for row in rows} == {60_000}


def test_the_documents_of_the_resampled_layers_share_as_much_as_quoted() -> None:
    (text, (least, most)), (others, (low, high)) = sorted(resampled.correlations(results("resampling")).items())[
        ::-1
    ]
    sentence = f"On the layers below it is # to # for {text}, and # to # for {others}."
    assert quoted(FORECAST, sentence) == [round(least, 3), round(most, 2), round(low, 2), round(high, 2)]


@pytest.mark.parametrize(("scale", "auxk"), [("full", False), ("full", True), ("quick", False), ("quick", True)])
def test_the_table_of_revivals_is_that_of_the_results(scale: str, auxk: bool) -> None:
    rows = [row for row in results("revival") if row["scale"] == scale and ("auxk" in row["run"]) == auxk]
    off = [abs(row["relu"] - row["relu_end"]) for row in rows]
    what = f"{scale}{' scale' if scale == 'full' else ''}, {'AuxK' if auxk else 'without AuxK'}"
    sentence = f"| {what}{' (held out)' if scale == 'full' else ''} | # of # | # "
    page = words(FORECAST).replace("**", "")
    [found] = re.findall(re.escape(sentence).replace(r"\#", r"(\d+)").replace(r"\ ", " "), page)
    assert [int(number) for number in found] == [sum(o <= 0.1 for o in off), len(off), round(100 * max(off))]


def tables() -> dict[str, tuple[str, str]]:
    """(page, table) of what scripts print."""
    real, trained = ROOT / "experiments/real_models/results", ROOT / "experiments/training/results"
    layers = {name: json.loads((real / f"{name}.json").read_text())["layers"] for name in ("gemma3", "smollm2")}
    shown = ("hs0", "hs12", "hs29")
    runs = {name: json.loads((trained / f"{name}.json").read_text()) for name in ("gemma3_hs2", "smollm2_hs12")}
    return {
        "births of Gemma": ("docs/gemma3.md", births.table(layers["gemma3"])),
        "births of SmolLM2": ("docs/smollm2.md", births.table(layers["smollm2"])),
        "births in README": (README, births.table([row for row in layers["smollm2"] if row["layer"] in shown])),
        "training of Gemma": ("docs/training.md", trainings.table(runs["gemma3_hs2"]["rows"])),
        "training of SmolLM2": ("docs/training.md", trainings.table(runs["smollm2_hs12"]["rows"])),
        "estimators": (FORECAST, summary.by_estimator(judging())),
        "networks": (FORECAST, summary.by_network(results("validation"))),
        "sizes": (FORECAST, summary.by_size(results("sizes"))),
        "parts of SAELens' cure": ("docs/interop.md", libraries.parts_table(libraries.read())),
        "other libraries": ("docs/interop.md", libraries.table(libraries.read())),
        "resampled death": (FORECAST, resampled.death_table(results("resampling"))),
        "resampled layers": (FORECAST, resampled.layer_table(results("resampling"))),
        "resampled intervals": (FORECAST, resampled.severity_table(results("resampling"))),
        "trained SAEs": (FORECAST, trained_death.table(results("trained_death"), "stream")),
    }


def test_forecasts_of_trained_saes_are_as_far_off_as_quoted() -> None:
    stream = [row for row in results("trained_death") if row["from"] == "stream" and not row["chosen_on"]]
    numbers = trained_death.summary(stream)
    saes, error = numbers["saes"], round(numbers["error"], 2)
    networks = len({row["layer"].split(".")[0] for row in stream})
    assert networks == 5
    sentence = (
        "On # SAEs of five networks that judge it, the forecast from 4,096 tokens to the count on 100,000 is # "
        "points off on average."
    )
    assert quoted(FORECAST, sentence) == [saes, error]
    digits = {"worst": 1, "holds": 0, "on_sample": 1, "at_20480": 1}
    rest = [round(numbers[key], places) for key, places in digits.items()]
    sentence = (
        "At worst it is # points off, and its interval holds for # % of them. A count on the sample is # points "
        "too high on average, and one on 20,480 tokens #."
    )
    assert quoted(FORECAST, sentence) == rest
    sentence = (
        "From 4,096 tokens, death of a trained SAE on 100,000 is forecast # points off on average over # SAEs"
    )
    assert quoted(LIMITS, sentence) == [error, saes]


@pytest.mark.parametrize("name", tables())
def test_a_table_in_the_docs_is_what_its_script_prints(name: str) -> None:
    page, table = tables()[name]
    assert table in (ROOT / page).read_text()


def test_the_speeds_are_those_of_the_benchmarks() -> None:
    sizes = [benchmark("train_step")[size] for size in ("small", "large", "wide")]

    def between(of: str, name: str, digits: int) -> list[float]:
        values = [round(size[of][name], digits) for size in sizes]
        return [min(values), max(values)]

    peers = ("sparsify", "dictionary_learning", "SAELens", "SAELens sparse")
    sentence = (
        "a training step is # to # times as fast as sparsify's, # to # times as fast as dictionary_learning's, "
        "# to # times as fast as SAELens's (# to # times its sparse mode), and takes # to # times as long as its "
        "encoder product in float32. On a processor without bfloat16 instructions it takes # to # times as long, "
        "without Numba # to # times."
    )
    assert quoted(LIMITS, sentence) == [
        *(number for peer in peers for number in between("of_ours", peer, 1)),
        *between("of_product", "autopsae", 2),
        *between("of_product", "autopsae, float32 products", 2),
        *between("of_product", "autopsae without Numba", 1),
    ]
    sweep = benchmark("sweep")
    fastest = [
        round(sweep[name]["times_the_fastest_peer"]["autopsae"], 1)
        for name in (
            "32 synthetic, batch 512",
            "32 synthetic, batch 4096",
            "8 learning rates, d_in 384, d_sae 2048",
        )
    ]
    sentence = "a sweep of 32 small SAEs is # (batch 512) and # times (batch 4096) as fast as the fastest"
    assert quoted(LIMITS, sentence) == fastest[:2]
    assert quoted(LIMITS, "one of 8 SAEs of real shape is # times as fast") == fastest[2:]
    births = [case["of_three_products"] for case in benchmark("birth")["cases"].values()]
    sentence = "with its statistics and forecasts, takes # to # times as long as the three encoder products"
    assert quoted(LIMITS, sentence) == births


def test_the_page_on_exact_selection_says_what_was_compared() -> None:
    results = json.loads((ROOT / "experiments/training/results/selection.json").read_text())
    real = results.pop("smollm2 hs12")
    page = "docs/exact-selection.md"
    sentence = "(# tokens, d_sae 8192, k 64), a median of # latents per token remained"
    assert quoted(page, sentence) == [real["tokens"], real["candidates"]]
    assert quoted(page, "On # tokens the sets differed") == [real["differing_within_rounding"]]
    assert not any(one["wrong"] + one["positive_wrong"] for one in (real, *results.values()))


def test_the_page_on_diagnoses_says_of_two_users_files_what_training_found() -> None:
    kept = json.loads((ROOT / "experiments" / "users" / "results" / "cases.json").read_text())
    page = words("docs/diagnosis.md")

    def span(case: str, remedy: str, what: str, digits: int, unit: float = 1.0) -> str:
        values = [unit * row[what] for row in kept[case]["trained"] if row["remedy"] == remedy]
        end = " %" if unit == 100 else ""
        return f"{min(values):.{digits}f}{end} to {max(values):.{digits}f}{end}"

    def dead(case: str, remedy: str, what: str = "dead_end") -> str:
        return span(case, remedy, what, 1, 100)

    vit, vggt = kept["vit"]["prescribed"], kept["vggt"]["prescribed"]
    assert f"{dead('vit', 'none')} of the latents are dead at the end, as prescribed {dead('vit', vit)}." in page
    raw = [span("vit", remedy, "fvu_raw", 4) for remedy in ("none", vit)]
    typical = [span("vit", remedy, "fvu_typical", 3) for remedy in ("none", vit)]
    assert (
        f"{raw[0]} without and {raw[1]} with it; of the typical tokens it is {typical[0]} and {typical[1]}." in page
    )
    raw = [span("vggt", remedy, "fvu_raw", 3) for remedy in ("none", vggt)]
    assert (
        f"{dead('vggt', 'none')} are dead at the end, and the raw FVU is {raw[0]}. Centered, it is {raw[1]}."
        in page
    )
    assert (
        f"But {dead('vggt', vggt)} are dead at the end, after {dead('vggt', vggt, 'dead_birth')} at birth." in page
    )
    for case, told in (("vit", ("alpha 0.15", "2.38%", "83.9%")), ("vggt", ("gamma 3.2", "83.2%", "(0.4% dead"))):
        said = " ".join(kept[case]["says"])
        assert all(number in said for number in told)


BIAS = "docs/bias.md"
CURES = "docs/cures.md"


def test_the_page_on_the_bias_has_the_table_of_known_origins(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads((ROOT / "experiments/training/results/origin.json").read_text())
    origin.table(rows)
    assert capsys.readouterr().out in (ROOT / BIAS).read_text()
    means = {(row["world"], row["start"], row["bias"]): row for row in origin.means(rows)}
    learned, frozen = (means["dense", "median", bias] for bias in ("learned", "frozen"))
    said = quoted(BIAS, "than with a frozen one (# against # %)")
    assert said == [round(100 * learned["dead"], 1), round(100 * frozen["dead"], 1)]
    assert quoted(BIAS, "and the error is # % lower.") == [round(100 * (1 - learned["fvu"] / frozen["fvu"]))]
    learned, frozen = (means["sparse", "median", bias] for bias in ("learned", "frozen"))
    assert quoted(BIAS, "The error falls by # %.") == [round(100 * (1 - learned["fvu"] / frozen["fvu"]))]


def test_the_page_on_the_bias_has_the_rows_of_real_layers() -> None:
    rows = [row for row in results("policies") if (row["steps"], row["lr"], row["seed"]) == (2000, 3e-4, 0)]
    policies = ("median", "median_slow", "median_frozen", "median_decoder", "whiten_0.05", "whiten_0.15")
    for layer, d_in in (
        ("unirep64 hs4", 64),
        ("unirep64 hs2", 64),
        ("unirep256 hs4", 256),
        ("spliceai add_20", 32),
    ):
        by = {row["policy"]: row for row in rows if f"{row['model']} {row['layer']}" == layer}
        cells = " | ".join(f"{by[name]['dead']:.1%}, {by[name]['fvu_raw']:.4g}" for name in policies)
        assert f"| {layer} | {d_in} | {cells} |" in (ROOT / BIAS).read_text()


def test_the_page_on_trials_has_the_tables_of_ageing_and_of_long_trainings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs/trial.md").read_text()
    ageing.table()
    assert capsys.readouterr().out in page
    rows = policy_rows.read()
    for model, layer in (("unirep64", "hs4"), ("unirep256", "hs4"), ("spliceai", "add_20")):
        policy_rows.over_time(rows, model, layer)
        assert capsys.readouterr().out in page
    ends = {
        row["policy"]: row
        for row in rows
        if (row["model"], row["layer"], row["steps"], row["lr"]) == ("unirep64", "hs4", 20_000, 3e-4)
        and row["chose"] is None
    }
    said = quoted("docs/trial.md", "within # % of the lowest, and # % of the latents are dead instead of # %.")
    worse = ends["median_frozen"]["fvu_raw"] / min(row["fvu_raw"] for row in ends.values()) - 1
    assert said == [round(100 * worse), *(round(100 * ends[p]["dead"], 1) for p in ("median_frozen", "median"))]
    about = {"model": "unirep256", "age": 10, "batch": 256, "steps": 200, "policy": "median"}
    [aged] = [row["dead"] for row in policy_rows.read_ageing() if about.items() <= row.items()]
    assert quoted("docs/trial.md", "on UniRep-256 hs4, # % are dead under the median")[0] == round(100 * aged, 1)
    about = {"layer": "hs4", "lr": 3e-4, "seed": 0}
    trials = {
        (row["model"], row["steps"]): row
        for row in rows
        if row["policy"] == "trial" and about.items() <= row.items()
    }
    longer = [trials["unirep64", steps] for steps in (5000, 10_000, 20_000)]
    assert [row["chose"] for row in longer] == ["whiten_0.15_fitted", "median_slow", "whiten_0.05_slow"]
    dead = quoted("docs/trial.md", "of which # % and # % die")
    assert dead == [round(100 * row["dead"], 1) for row in longer[1:]]
    of_5000 = [r for r in rows if r["model"] == "unirep64" and r["steps"] == 5000 and about.items() <= r.items()]
    lowest = min(row["fvu_raw"] for row in of_5000 if row["dead"] <= 0.01)
    over = longer[0]["fvu_raw"] / lowest - 1
    assert quoted("docs/trial.md", "whose error is # % over the lowest of those with few") == [round(100 * over)]
    alive = {name: row for name, row in ends.items() if row["dead"] <= 0.01}
    assert alive
    assert all(name.endswith("_fitted") for name in alive)
    more = min(row["fvu_raw"] for row in alive.values()) / min(row["fvu_raw"] for row in ends.values()) - 1
    assert quoted("docs/trial.md", "with at least # % more error") == [int(100 * more)]
    assert trials["unirep256", 20_000]["chose"] == "whiten_0.3"
    calm = {
        row["policy"]: row
        for row in rows
        if (row["model"], row["layer"], row["steps"], row["lr"]) == ("unirep256", "hs4", 20_000, 3e-4)
    }
    worse = calm["whiten_0.3"]["fvu_raw"] / min(row["fvu_raw"] for row in calm.values()) - 1
    assert quoted("docs/trial.md", "which ends # % over the lowest error") == [round(100 * worse)]


def test_the_page_on_the_bias_has_the_table_of_those_whom_the_move_kills(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = json.loads((ROOT / "experiments/training/results/wander.json").read_text())
    rows = [row for row in rows if row["layer"] == "unirep64.hs4"]
    wander.table(rows)
    assert capsys.readouterr().out in (ROOT / BIAS).read_text()
    plain, biased = ({row["bias"]: row for row in rows if row["encoder_bias"] == with_bias} for with_bias in (0, 1))
    dead, lower = quoted(BIAS, "with them and a frozen `b_dec`, # % die, and the error is # % lower")
    assert dead == round(100 * biased["frozen"]["dead"], 1)
    assert lower == round(100 * (1 - biased["frozen"]["fvu_raw"] / plain["frozen"]["fvu_raw"]))


def test_the_page_on_trials_has_the_shares_of_the_policies(capsys: pytest.CaptureFixture[str]) -> None:
    rows = policy_rows.read()
    policy_rows.print_compared(rows, 1000)
    assert capsys.readouterr().out in (ROOT / "docs/trial.md").read_text()
    compared = policy_rows.compared(rows, 1000)
    layers = {(row["model"], row["layer"]) for row in compared}
    assert (len(layers), len({model for model, _ in layers})) == (25, 9)
    both = {policy: round(25 * share["both"]) for policy, share in shares(compared).items()}
    constants = {p: n for p, n in both.items() if p not in ("trial", "rule", "paper_rule")}
    assert quoted("docs/trial.md", "The trial has both on # of #.") == [both["trial"], 25]
    assert quoted("docs/trial.md", "`whiten_0.15_fitted`, on # of #.") == [max(constants.values()), 25]
    assert constants["whiten_0.15_fitted"] == max(constants.values())
    apart = {("unirep64", "hs3"), ("unirep256", "hs3"), ("spliceai", "add_14"), ("dinov2", "hs9")}
    apart |= {("antiberty", "hs4"), ("smollm2", "hs20"), ("smollm2", "hs29"), ("gemma3", "hs14")}
    apart |= {("qwen", "hs4"), ("qwen", "hs20")}
    of_apart = shares([r for r in compared if (r["model"], r["layer"]) in apart or r["model"] == "minilm"])
    sentence = "the trial has both on # of 13, and the rule on #. So has a constant: `whiten_0.15_fitted`, on #."
    policies = ("trial", "rule", "whiten_0.15_fitted")
    assert quoted("docs/trial.md", sentence) == [round(13 * of_apart[policy]["both"]) for policy in policies]
    assert of_apart["whiten_0.15_fitted"]["both"] == 1
    usual = [n for p, n in constants.items() if "_fitted" not in p]
    assert quoted("docs/trial.md", "none has both on more than #") == [max(usual)]
    assert quoted("docs/trial.md", "as it is** has both on #") == [both["none"]]
    by_layer: dict[tuple[str, str], dict[str, Row]] = {}
    for row in compared:
        by_layer.setdefault((row["model"], row["layer"]), {})[row["policy"]] = row
    dinov2 = by_layer["dinov2", "hs12"]
    assert "_fitted" in dinov2["trial"]["chose"]
    over = dinov2["trial"]["fvu_raw"] / dinov2["median"]["fvu_raw"] - 1
    assert quoted("docs/trial.md", "whose error is # % over that of the median") == [round(100 * over)]


def test_the_page_on_trials_has_the_rows_up_to_the_limit_of_short_trainings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows, page = policy_rows.read(), "docs/trial.md"
    policy_rows.print_further(rows)
    assert capsys.readouterr().out in (ROOT / page).read_text()
    layers = policy_rows.grouped(policy_rows.further(rows), "policy", "chose")
    judged = shares([row for layer in layers[13:] for row in layer if row["policy"] != "rule" or row["chose"]])
    assert quoted(page, "**The first # rows were seen when the limit was set") == [13]
    dead = [row["dead"] for layer in layers[:13] for row in layer if row["policy"] == "median"]
    assert quoted(page, "leaves over 1 % dead on # of the first # rows") == [sum(d > 0.01 for d in dead), 13]
    sentence = "There the rule has few dead and a low error on # of #."
    assert quoted(page, sentence) == [round(judged["rule"]["both"] * len(layers[13:])), len(layers[13:])]
    of_all = shares(policy_rows.further(rows))
    counts = {
        policy: [round(of_all[policy][name] * len(layers)) for name in ("few_dead", "both")]
        for policy in ("whiten_0.15_fitted", "median")
    }
    fitted = counts["whiten_0.15_fitted"]
    sentence = "leaves few dead on # of #, and has few dead and a low error on #. The median has both on #."
    assert quoted(page, sentence) == [fitted[0], len(layers), fitted[1], counts["median"][1]]


def test_the_page_on_trials_has_the_rows_of_one_setting_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    rows, page = policy_rows.read(), "docs/trial.md"
    policy_rows.print_factors(rows)
    assert capsys.readouterr().out in (ROOT / page).read_text()
    changes = policy_rows.at_factors(rows)
    fitted = [by["whiten_0.15_fitted"] for _, _, by in changes]
    lowest = [min(by[policy]["fvu_raw"] for policy in policy_rows.AT_FACTORS) for _, _, by in changes]
    low = sum(row["fvu_raw"] <= 1.02 * best for row, best in zip(fitted, lowest, strict=True))
    few = sum(row["dead"] <= 0.01 for row in fitted)
    sentence = "is within 2 % of the lowest error in # of the # rows, and leaves at most 1 % dead in #."
    assert quoted(page, sentence) == [low, len(changes), few]
    dead = {change: by for layer, change, by in changes if layer == "unirep64 hs4"}
    assert quoted(page, "with k 16, # % die") == [round(100 * dead["k 16"]["whiten_0.15_fitted"]["dead"], 1)]
    sentence = "**At 1e-3 the median leaves # % dead on UniRep-64 hs4,** and at 1e-4 # %"
    said = [round(100 * dead[change]["median"]["dead"], 1) for change in ("lr 0.001", "lr 0.0001")]
    assert quoted(page, sentence) == said


def test_the_page_on_trials_says_what_the_rule_for_short_trainings_was_judged_by() -> None:
    rows = [row for row in policy_rows.read() if row["lr"] == 3e-4 and row["d_sae"] == 2048 and row["k"] == 32]

    def ends(model: str, layer: str, steps: int) -> dict[str, Row]:
        about = {"model": model, "layer": layer, "steps": steps, "seed": 0}
        return {row["policy"]: row for row in rows if about.items() <= row.items()}

    severe = ends("qwen", "hs4", 1000)
    assert quoted("docs/trial.md", "On Qwen2.5-Coder hs4 that left # % dead") == [
        round(100 * severe["none"]["dead"], 1)
    ]
    mild = ends("qwen", "hs20", 1000)
    assert mild["rule"]["chose"] == "whiten_0.15_fitted"
    assert mild["rule"]["dead"] == 0
    assert mild["rule"]["fvu_raw"] == min(row["fvu_raw"] for row in mild.values())
    lower = (("unirep64", "hs4"), ("unirep256", "hs4"), ("unirep256", "hs3"), ("spliceai", "add_20"))
    for model, layer in lower:
        at = ends(model, layer, 2000)
        plain = min(row["fvu_raw"] for policy, row in at.items() if "_fitted" not in policy and not row["chose"])
        assert at["whiten_0.15_fitted"]["fvu_raw"] < plain, (model, layer)
    over = []
    for model, layer in (("smollm2", "hs29"), ("gemma3", "hs14")):
        at = ends(model, layer, 2000)
        few = (row["fvu_raw"] for policy, row in at.items() if "_fitted" not in policy and row["dead"] <= 0.01)
        over.append(100 * (at["whiten_0.15_fitted"]["fvu_raw"] / min(few) - 1))
    sentence = "the error of a fitted encoder is # % over that of the best constant (on Gemma 3 hs14 # %)"
    assert quoted("docs/trial.md", sentence) == [round(over[0]), round(over[1], 1)]


def test_the_page_on_cures_has_the_tables_of_the_rows() -> None:
    for table in cure_rows.tables(cure_rows.read()):
        assert table in (ROOT / CURES).read_text()


def test_the_page_on_cures_has_the_tables_of_longer_trainings(capsys: pytest.CaptureFixture[str]) -> None:
    rows = policy_rows.read()
    for model in ("unirep64", "unirep256"):
        policy_rows.over_time(rows, model, "hs4", fitted=True)
        assert capsys.readouterr().out in (ROOT / CURES).read_text()
    about = {"layer": "hs4", "seed": 0, "lr": 3e-4, "chose": None}
    ends = {(r["model"], r["policy"], r["steps"]): r["fvu_raw"] for r in rows if about.items() <= r.items()}
    more = [
        100 * (ends["unirep256", "median_fitted", at] / ends["unirep256", "median", at] - 1)
        for at in (2000, 5000, 10_000)
    ]
    sentence = "has # % less error than `median` after 2,000 steps, # % more after 5,000, and # % more after 10,000"
    assert quoted(CURES, sentence) == [round(-more[0]), round(more[1]), round(more[2])]
    fast = [ends["unirep64", f"{name}_fitted_fast", 20_000] for name in ("median", "median_frozen")]
    assert quoted(CURES, "the error is # with it and # with a frozen one") == [round(one, 3) for one in fast]


def test_the_page_on_cures_says_how_much_a_fitted_encoder_lowers_the_error() -> None:
    rows = {(row["layer"], row["lr"], row["steps"], row["cure"]): row for row in cure_rows.read()}
    layers, said = ("unirep64.hs4", "spliceai.add_20", "unirep256.hs4"), []
    for layer in layers:
        fitted = rows[layer, 3e-4, 1000, "fitted_0.15"]
        constant = cure_rows.best(cure_rows.constants(cure_rows.read(), fitted))[1]
        said.append(float(f"{constant['fvu_raw'] / fitted['fvu_raw']:.2g}"))
    sentence = "of the best constant is # (UniRep-64), # (SpliceAI) and # times (UniRep-256) that of `fitted_0.15`"
    assert quoted(CURES, sentence) == said
    dead = [round(100 * rows[layer, 3e-4, 1000, "fitted_0.15"]["dead"], 1) for layer in layers]
    assert quoted(CURES, "which leaves # %, # % and # % of the latents dead.") == dead
    from_median = max(rows[layer, 3e-4, 200, "fitted"]["dead"] for layer in layers)
    assert quoted(CURES, "From the median, up to # % of the latents") == [round(100 * from_median, 1)]
    fast = {steps: rows["spliceai.add_20", 3e-4, steps, "fitted_fast_0.15"] for steps in (200, 1000)}
    said = [round(100 * fast[steps]["dead"], 1) for steps in (200, 1000)]
    assert quoted(CURES, "`fitted_fast_0.15` leaves # % dead after 200 steps and # % after 1,000") == said
    ends = [round(100 * rows["unirep64.hs4", 3e-4, 1000, cure]["dead"], 1) for cure in ("fitted_auxk", "fitted")]
    assert quoted(CURES, "# % are dead with it, and # % without") == ends
    relative = rows["spliceai.add_20", 3e-4, 1000, "fitted_0.15"]
    errors = [round(row["fvu_raw"], 4) for row in (fast[1000], relative)]
    assert quoted(CURES, "has the lower error:** # against # there") == errors
    assert relative["dead"] == 0


def test_the_time_of_a_large_page_is_that_of_the_benchmark() -> None:
    told = benchmark("page")
    page = "docs/page.md"
    assert quoted(page, "# layers under 6 remedies and # latents, each with the tokens on which it fires most") == [
        told["layers"],
        told["latents"],
    ]
    assert quoted(page, "fires most, have # MB") == [told["megabytes"]]
    assert quoted(page, "Its first figure is drawn after # s.") == [round(told["seconds"]["first figure"], 2)]
    seconds = [told["seconds"][name] for name in ("idle", "processor")]
    assert quoted(
        page, "such a page takes # s in headless Chromium on # idle cores, # s of which one core works"
    ) == [
        round(seconds[0], 2),
        told["machine"]["threads"],
        round(seconds[1], 2),
    ]


def test_the_table_of_the_gpu_is_what_was_measured() -> None:
    measured = benchmark("gpu")
    names = {"SAELens, sparse": "SAELens sparse", "sparsify, its forward pass in bfloat16": "sparsify"}
    names |= {f"the encoder product alone, {kind}": f"{kind} product" for kind in ("float32", "bfloat16")}
    [of_readme] = re.findall(
        r"\| B 4096, k 64 \|.*\n\|[-|]+\n((?:\|.*\n)+)", (ROOT / "benchmarks/README.md").read_text()
    )
    for line in of_readme.splitlines():
        name, *told = [cell.strip() for cell in line.strip("|").split("|")]
        contestants = [size["contestants"][names.get(name, name)] for size in measured["steps"]]
        for time, ratio, found in zip(told[::2], told[1::2], contestants, strict=True):
            assert float(time) == pytest.approx(found["milliseconds"], rel=0.04)
            assert float(ratio) == pytest.approx(found["of_ours"], abs=0.006)
    correctness = measured["correctness"]
    assert quoted("benchmarks/README.md", "of # selected pairs in float32 none") == [
        correctness["selection"]["pairs"]
    ]
    assert correctness["selection"]["selected_otherwise"] == 0
    assert correctness["training"]["largest_difference_of_a_weight"] < 3.5e-14
    assert correctness["training"]["largest_relative_error_of_a_loss"] < 1.5e-15
    sentence = "**The diagnosis of a wide layer** (32,768 tokens, d_in 4096, d_sae 131,072) takes # s, and three"
    assert quoted("benchmarks/README.md", sentence) == [pytest.approx(measured["diagnosis"]["seconds"], abs=0.05)]


def test_what_was_killed_is_what_the_benchmark_of_engines_recorded() -> None:
    told, page = benchmark("cluster"), "docs/cluster.md"
    sentence = "`benchmarks/cluster.py` diagnoses # layers and trains a sweep of # SAEs on two engines"
    assert quoted(page, sentence) == [told["layers"], told["members"]]
    assert quoted(page, "Meanwhile # workers were killed") == [told["kills"]]
    assert quoted(page, "half-way in both runs on Ray, # in all") == [told["nodes_removed"]]
    differences = [*(run["largest_difference"] for run in told["runs"]), told["in_turn_to_together"]]
    assert quoted(page, "difference of a number or a weight was #") == [max(differences)]
    assert all(run["equal"] and run.get("each_step_recorded_once", True) for run in told["runs"])
    done = [sum(run[name] for run in told["runs"]) for name in ("jobs_done", "done_twice")]
    assert quoted(page, "all # jobs are done in the manifests, # results were written a second time") == done
    assert done[0] == 2 * (told["layers"] + told["members"])
    assert quoted(page, "one record of each of its # steps") == [told["steps"]]
    assert quoted(page, "The four runs took # s") == [round(sum(run["seconds"] for run in told["runs"]))]


def test_the_example_of_an_autopsy_is_what_its_script_found() -> None:
    example = json.loads((ROOT / "experiments/autopsy/results/example.json").read_text())
    found, median = example["autopsy"], example["from_the_median"]
    page, living = "docs/autopsy.md", found["d_sae"] - found["n_dead"]
    head = "# of # latents (topk) are dead on # tokens of d_in = #; #% (#% to #%) expected dead on # tokens"
    shares = [round(100 * share, 1) for share in (found["dead_forecast"], *found["dead_forecast_interval"])]
    sizes = [found["n_dead"], found["d_sae"], found["tokens"], found["d_in"]]
    assert quoted(page, head) == [*sizes, *shares, found["dead_forecast_tokens"]]
    rows = {
        "alive # #% fire now and then": found["n_alive"] - found["n_always_on"] - found["n_rare"],
        "always on # #% fire on at least": found["n_always_on"],
        "dead, never positive # #%": found["n_dead_by_relu"],
        "dead, never selected # #%": found["n_dead_by_topk"],
        "shift # #% dead": found["causes"]["shift"],
    }
    for row, count in rows.items():
        assert quoted(page, row) == [count, round(100 * count / found["d_sae"], 1)]
    sentence = "**# latents are always on** and carry the mean. They fill # of the 16 places"
    assert quoted(page, sentence) == [found["n_always_on"]] * 2
    assert example["recentred"]["n_woken"] == 0
    assert quoted(page, "**No dead latent wakes if it is re-centred now:** the # living ones") == [living]
    assert median["causes"]["died_in_training"] == median["n_dead"]
    assert quoted(page, "rate, # latents are dead at the end instead of #") == [median["n_dead"], found["n_dead"]]
    errors = [round(median["fvu_raw"], 3), round(example["fvu_raw"], 3)]
    assert quoted(page, "The raw FVU is # instead of #.") == errors
