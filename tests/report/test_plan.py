"""A plan as it is printed: every number at any width, and no table where there is nothing to compare."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from autopsae.report.plan import plan_text
from autopsae.training import TrainingPlan
from autopsae.training.devices import DevicesPlan

ON = [
    DevicesPlan(
        devices=n,
        seconds_per_step=36 / n,
        memory_bytes=8_000_000 // n,
        sent_bytes=1000 * (n - 1),
        hours_10_gbit=100 / n + n,
        hours_400_gbit=100 / n,
    )
    for n in (1, 2, 4)
]
PLAN = TrainingPlan(
    layers=("hs0", "hs1", "hs2"),
    d_in=16,
    d_sae=64,
    tokens=640_000,
    steps=10_000,
    batch_tokens=64,
    seconds_per_step=36.0,
    hours=100.0,
    memory_bytes=8_000_000,
    disk_bytes=1000,
    device="cpu",
    threads=1,
    on_devices=tuple(ON),
)


def printed(plan: TrainingPlan, width: int) -> str:
    page = StringIO()
    Console(width=width, file=page).print(plan_text(plan))
    return page.getvalue()


def rows(text: str) -> list[list[str]]:
    lines = text[text.index("─\n") :].splitlines()[1:]
    return [line.split() for line in lines if line.strip()]


def test_a_row_has_the_hours_the_memory_and_the_bytes_of_each_number_of_devices() -> None:
    text = printed(PLAN, 120)
    assert str(PLAN) in " ".join(text.split())
    assert "estimated for its latents spread over several such devices" in text
    two = ["2", "52", "hours", "(2.2", "days)", "50", "hours", "(2.1", "days)", "4.0", "MB", "1.0", "kB"]
    # Three layers on two devices take two turns of 100 hours, on four one.
    assert rows(text)[1] == [*two, "200", "hours", "(8.3", "days)"]
    assert [row[-4] for row in rows(text)] == ["300", "200", "100"]


def test_one_device_sends_nothing_and_one_layer_has_no_column_of_layers() -> None:
    text = printed(replace(PLAN, layers=("hs0",)), 120)
    assert "SAEs, one a layer" not in text
    assert rows(text)[0][-1] == "nothing"


@pytest.mark.parametrize("width", [30, 50])
def test_no_number_is_cut_on_a_narrow_terminal(width: int) -> None:
    text = printed(PLAN, width)
    assert max(map(len, text.splitlines())) <= width
    said = " ".join(text.split())
    line = (
        "2: 52 hours (2.2 days) (10 Gbit/s) or 50 hours (2.1 days) (400 Gbit/s), 4.0 MB of memory each, 1.0 kB sent"
    )
    assert f"{line}; an SAE of each layer, one to a device: 200 hours (8.3 days)" in said


def test_an_sae_that_cannot_be_spread_has_no_table() -> None:
    for on in ((), (ON[0],)):
        assert printed(replace(PLAN, on_devices=on), 1000).strip() == str(PLAN)
