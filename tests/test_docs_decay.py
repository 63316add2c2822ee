"""The page on training says of a falling rate what the rows say."""

from statistics import mean

from experiments.training import decay

from tests.test_docs_numbers import quoted

PAGE = "docs/training.md"
SINKS = "smollm2.hs12"


def change(share: float, *, steps: int = 1000, layer: str = SINKS, lr: float = 1e-3, name: str = "fvu_raw") -> int:
    """In per cent of the error at a constant rate."""
    rows = decay.groups(decay.read())[steps, layer, lr]
    return round(100 * (mean(decay.ratios(rows, share, name)) - 1))


def test_the_table_is_that_of_the_rows() -> None:
    assert decay.table(decay.read()) in decay.PAGE.read_text()


def test_what_a_falling_rate_costs_and_gains_is_what_the_rows_say() -> None:
    short = [where for where in decay.groups(decay.read()) if where[0] == 1000]
    worst = [max(change(share, layer=layer, lr=lr) for _, layer, lr in short) for share in (0.1, 0.5)]
    assert quoted(PAGE, "over the last tenth of 1,000 steps up to # %, over the last half up to # %.") == worst
    long = [(layer, lr) for steps, layer, lr in decay.groups(decay.read()) if steps == 5000 and layer != SINKS]
    costs = [change(0.1, steps=5000, layer=layer, lr=lr) for layer, lr in long]
    assert quoted(PAGE, "it costs after 5,000 steps too, over the last tenth up to # %.") == [max(costs)]
    assert min(costs) >= 0
    gains = [-change(0.1), -change(0.1, steps=5000)]
    assert quoted(PAGE, "raw error by # % after 1,000 steps and by # % after 5,000.") == gains
    typical = [change(0.1, steps=steps, name="fvu_typical") for steps in (1000, 5000)]
    assert quoted(PAGE, "The error without strays changes by # % at most") == [max(map(abs, typical))]
    slow = [change(0.1, lr=3e-4), -change(0.1, lr=3e-4, steps=5000)]
    assert quoted(PAGE, "it costs # % after 1,000 steps, and gains # % after 5,000.") == slow
    for (steps, layer, lr), rows in decay.groups(decay.read()).items():
        tenth, half = (mean(decay.ratios(rows, share)) for share in (0.1, 0.5))
        assert tenth < half, (steps, layer, lr)


def test_how_much_seeds_differ_is_what_the_rows_say() -> None:
    rows = [row for row in decay.groups(decay.read())[1000, SINKS, 1e-3] if row["decay"] == 0]
    assert len(rows) == 3
    factors = [
        max(row[name] for row in rows) / min(row[name] for row in rows) for name in ("fvu_raw", "fvu_typical")
    ]
    sentence = "by a factor of # after 1,000 steps, and errors without strays by a factor of #."
    assert quoted(PAGE, sentence) == [round(factor, 1) for factor in factors]
