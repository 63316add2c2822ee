"""The texts of a dataset that is streamed, and what is wrong with it said in a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import autopsae
from autopsae.arrays import InputError
from autopsae.cli.documents import documents_of
from autopsae.cli.options.shared import Reading
from autopsae.models.dataset import texts_of_dataset
from tests.models.words import Words

datasets: Any = pytest.importorskip("datasets")
TEXTS = [f"document {n} says {n * n}. " * 5 for n in range(40)]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def dataset(folder: Path, rows: list[Any], end: str = "") -> str:
    """A folder with a dataset of these rows as JSON lines."""
    folder.mkdir()
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
    return str(folder)


def stream_that_breaks(after: int) -> Iterator[dict[str, str]]:
    yield from ({"text": text} for text in TEXTS[:after])
    raise ConnectionError("the server went away\nand said more")


def test_a_dataset_gives_its_first_texts_and_leaves_out_those_that_are_none_or_empty(tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = [{"text": text} for text in TEXTS]
    rows[3:3] = [{"text": None}, {"text": ""}, {"text": " \n"}]
    name = dataset(tmp_path / "data", rows)
    assert [*(documents_of(Reading(dataset=f"hf:{name}")) or ())] == TEXTS
    assert [*texts_of_dataset(name, rows=5)] == TEXTS[:3]


@pytest.mark.parametrize("keep", [False, True])
def test_a_stream_that_breaks_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream_that_breaks(7))
    network, kept = Words(), tmp_path / "kept"
    with pytest.raises(InputError) as caught:
        autopsae.diagnose_model(
            network, texts_of_dataset("some/name"), tokens=500, d_sae=32, k=4, keep=kept if keep else None
        )
    assert str(caught.value) == (
        "some/name: the stream broke off after 7 rows (ConnectionError: the server went away); run the same again, "
        "or save the rows as a .jsonl file first"
    )
    assert network.model.runs == 0
    assert not kept.exists()


def test_a_file_that_ends_within_a_row_is_a_stream_that_breaks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = dataset(tmp_path / "data", [{"text": text} for text in TEXTS], end='{"text": "half a li')
    with pytest.raises(InputError, match=r"^[^\n]*/data: the stream broke off after \d+ rows \([^\n]*\); run the"):
        list(texts_of_dataset(name))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"content": "a", "id": 1}], r'row 0: expected a "text", got the columns content, id$'),
        ([{"text": 7}], 'row 0: expected a string as "text", got int$'),
        ([{"text": None}] * 3, "expected rows with some text, got none$"),
        ([], "expected rows with some text, got none$"),
    ],
)
def test_a_dataset_without_texts_is_one_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(texts_of_dataset(dataset(tmp_path / "data", rows)))


def test_a_dataset_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: cannot be had \([^\n]*\)$"):
        list(texts_of_dataset(str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match="expected hf:NAME, a dataset of the Hugging Face Hub"):
        documents_of(Reading(dataset="some/name"))
