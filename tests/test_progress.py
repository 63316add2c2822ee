"""Every long call tells of its progress in one form."""

import ast
from pathlib import Path

import pytest
import torch

import autopsae
from autopsae.progress import Progress, tell_progress

pytestmark = pytest.mark.quick

Heard = list[tuple[str, int, int | None]]


def test_a_block_is_told_once_it_has_been_worked_on_and_counts_its_tokens() -> None:
    heard: Heard = []
    for block in tell_progress([[1, 2], [3]], lambda *told: heard.append(told), "reading", 3):
        assert len(heard) == (block == [3])
    assert heard == [("reading", 2, 3), ("reading", 3, 3)]


def test_without_progress_the_blocks_are_the_same() -> None:
    assert [*tell_progress([[1, 2], [3]], None, "reading")] == [[1, 2], [3]]


def test_each_pass_tells_its_stage_and_all_tokens_where_their_number_is_known() -> None:
    x = torch.randn(120, 8, generator=torch.Generator().manual_seed(0))
    sae = autopsae.born(autopsae.remedies.untouched(8), d_sae=16, sparsity=autopsae.TopK(k=2), scaled=False)
    heard: Heard = []

    def progress(*told: object) -> None:
        heard.append(told)  # type: ignore[arg-type]

    autopsae.evaluate(sae, x, progress=progress)
    autopsae.fates(sae, x, progress=progress)
    autopsae.statistics.collect(x, progress=progress)
    autopsae.autopsy(sae, x, progress=progress)
    assert heard == [(stage, 120, 120) for stage in ("norms", "errors", "fates", "statistics", "fates")]
    heard.clear()
    autopsae.fates(sae, [(half,) for half in x.split(60)], progress=progress)
    assert heard == [("fates", 120, None)]


def test_no_function_has_another_form_of_progress() -> None:
    house = Path(autopsae.__file__).parent
    for path in house.rglob("*.py"):
        # A run tells of its records, which say more than how far it is.
        if path.parent.name == "run":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg) and node.arg == "progress":
                assert node.annotation is not None
                assert ast.unparse(node.annotation) in ("Progress | None", "Progress"), path


def test_any_function_of_a_stage_and_two_numbers_is_progress() -> None:
    assert isinstance(lambda _stage, _done, _total: None, Progress)
