"""Every long call tells of its progress in one form."""

import ast
from pathlib import Path

import pytest
import torch

import autopsae
from autopsae.progress import Progress, tell_progress
from autopsae.run.folder import Entry
from autopsae.run.many import run_sweep
from autopsae.run.observer import Observer
from autopsae.run.one import run

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


def test_no_function_and_no_field_has_another_form_of_progress() -> None:
    for path in Path(autopsae.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_field = isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "progress"
            if is_field or (isinstance(node, ast.arg) and node.arg == "progress"):
                annotation = getattr(node, "annotation", None)
                assert annotation is not None
                assert ast.unparse(annotation) in ("Progress | None", "Progress"), path


@pytest.mark.parametrize("is_sweep", [False, True])
def test_a_run_and_a_sweep_tell_the_steps_done_with_each_record(tmp_path: Path, is_sweep: bool) -> None:
    x = torch.randn(120, 8, generator=torch.Generator().manual_seed(0))
    sae = autopsae.born(autopsae.remedies.untouched(8), d_sae=16, sparsity=autopsae.TopK(k=2), scaled=False)
    config = autopsae.TrainConfig(steps=7, lr=1e-3, batch_tokens=16, record_every=3)
    entry = Entry(member=autopsae.training.Member(sae=sae, config=config, name="a"), about={})
    heard: list[object] = []
    observer = Observer(
        on_records=lambda records: heard.append([record.step for record in records.values()]),
        progress=lambda *told: heard.append(told),
    )
    if is_sweep:
        run_sweep([entry], x[:100], x[100:], tmp_path / "out", observer=observer)
    else:
        run(entry, x[:100], x[100:], tmp_path / "out", observer=observer)
    told = [[[record.step], ("training", record.step + 1, 7)] for record in autopsae.train(sae, x[:100], config)]
    assert heard == [one for pair in told for one in pair]


def test_any_function_of_a_stage_and_two_numbers_is_progress() -> None:
    assert isinstance(lambda _stage, _done, _total: None, Progress)
