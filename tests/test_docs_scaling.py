"""docs/scaling.md says what benchmarks/results/scaling.json has, and what the cost model makes of it."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks import projections
from benchmarks.scaling_tables import cases_table, plans_table, rates_table, ratios, read, worst

from autopsae.costs import Rates
from autopsae.training.costs import candidates

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
RESULT = read()


def words() -> str:
    return " ".join(PAGE.read_text().split())


@pytest.mark.parametrize("make", [rates_table, cases_table, plans_table])
def test_the_page_has_the_tables_of_the_result(make: object) -> None:
    assert callable(make)
    assert make(RESULT) in PAGE.read_text()


def test_the_page_has_the_projections_of_the_model() -> None:
    assert projections.table() in PAGE.read_text()


def percent(ratio: float) -> int:
    return round(100 * abs(ratio - 1))


def test_the_page_says_how_far_off_each_kind_of_prediction_is() -> None:
    for kind, called in (
        (("step",), "Steps"),
        (("statistics",), "passes of statistics"),
        (("reading",), "reading"),
        (("exchange",), "exchanges"),
        (("step on ranks",), "steps on ranks"),
    ):
        verb = "is" if called == "reading" else "are"
        assert f"{called} {verb} at most {percent(worst(ratios(RESULT, *kind)))} % off" in words(), kind
    every = ratios(RESULT)
    within = sum(abs(ratio - 1) <= 0.3 for ratio in every)
    assert f"{within} of {len(every)} predictions are within 30 % of what was measured" in words()
    plans = [row["planned_of_measured"] for row in RESULT["plans"]]
    assert f"The estimate is at most {percent(worst(plans))} % off" in words()


def test_the_page_says_how_many_candidates_a_screen_leaves() -> None:
    few, many = (round(candidates(64, 8192, d_in, products="bfloat16")) for d_in in (512, 8192))
    assert f"have {few} candidates at d_in 512 and {many} at d_in 8,192" in words()


def test_the_page_says_what_a_gpu_was_predicted_to_take() -> None:
    predicted, measured = projections.judged_gpu()
    assert f"is predicted to take {1000 * predicted:.0f} ms and took {1000 * measured:.0f}" in words()


def test_a_prediction_is_the_sum_of_the_seconds_of_its_resources() -> None:
    for row in RESULT["rows"]:
        assert sum(row["seconds"].values()) == pytest.approx(row["predicted"], rel=0.01)
        assert row["predicted"] / row["measured"] == pytest.approx(row["predicted_of_measured"], rel=0.01)


def test_a_million_latents_fit_from_as_many_gpus_on_as_the_page_says() -> None:
    large = [p for p in projections.projections() if "million latents" in p.what]
    assert [p.machines for p in large if p.wall == "memory"] == [1]
    said = re.search(r"meet memory first,\*\* up to (\d+) GPUs", words())
    memory = {ranks: projections.memory_of(8192, 1 << 20, ranks) for ranks in range(1, 17)}
    assert said
    assert int(said[1]) == max(ranks for ranks, needed in memory.items() if needed > projections.gpu().memory)
    last = large[-1]
    assert f"{100 * last.seconds['sent'] / sum(last.seconds.values()):.1f} % of the time on 16" in words()
    *_, trillion = projections.projections()
    share = trillion.seconds["stored"] / sum(trillion.seconds.values())
    assert f"reading takes {100 * share:.0f} % of the time" in words()
    assert f"{2 * 4 * 8192 * (1 << 20) / 1e9:.1f} GB" in words()


def test_more_machines_take_less_time_and_memory_each() -> None:
    large = [p for p in projections.projections() if "million latents" in p.what]
    for few, many in pairwise(large):
        assert many.memory < few.memory
        assert sum(many.seconds.values()) < sum(few.seconds.values())


def test_the_wall_of_a_projection_is_a_capacity_or_the_busiest_resource() -> None:
    one = next(p for p in projections.projections() if p.on.name == "H200")
    assert one.wall == "disk"
    assert one.disk > one.on.disk
    enough = projections.Machine(name="larger", rates=one.on.rates, memory=1e18, disk=1e18)
    seconds = projections.Projection(what="", on=enough, work=one.work, disk=one.disk).seconds
    assert projections.Projection(what="", on=enough, work=one.work, disk=one.disk).wall == max(
        seconds, key=lambda name: seconds[name]
    )
    assert isinstance(enough.rates, Rates)
