"""What is no result is refused in one line, and leaves no page."""

import json
from pathlib import Path

import pytest

from autopsae.arrays import InputError
from autopsae.cli import verbs
from autopsae.report.page.write import page_html, save_page
from autopsae.run.one import run
from autopsae.training.logs import read_lines
from tests.report import pages

pytestmark = pytest.mark.quick

EXPECTED = (
    "expected a result of autopsae: the JSON of diagnose, autopsy or features, of a trial, or the folder of a run"
)


@pytest.fixture(scope="module")
def diagnosis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "d.json"
    pages.save_diagnosis(path)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "could not read it (JSONDecodeError: Expecting value"),
        ("{", "could not read it (JSONDecodeError"),
        ("[1, 2]", f"{EXPECTED} or a sweep, got [1, 2]"),
        ("{}", "got an empty object"),
        ('{"a": 1, "b": 2}', "got an object with a, b"),
        (
            '{"format": "autopsae-prescription"}',
            "got a file of the format autopsae-prescription; pass the result that it belongs to",
        ),
        ('{"format": "autopsae-birth"}', "got the beginning of a run; pass its folder once it is finished"),
        ('{"alive": 3, "causes": {}}', "got an autopsy of another version; make it again with this one"),
        (
            '{"format": "autopsae-diagnosis", "version": 9}',
            "expected version 1 of a diagnosis, got version 9; use the autopsae that wrote it, or make it anew",
        ),
        ('{"format": "autopsae-diagnosis", "version": 1, "verdict": [], "layers": []}', "at least one layer"),
        ('{"format": "autopsae-trial", "version": 2}', "it lacks layer"),
        ('{"format": "autopsae-summary", "version": 2}', "it lacks birth"),
        ('{"causes": 3, "wake_on_recentring": 0}', "it lacks d_sae"),
        (
            '{"format": "autopsae-autopsy", "version": 2, "causes": 3, "wake_on_recentring": 0}',
            "expected version 1 of an autopsy, got version 2; use the autopsae that wrote it, or make it anew",
        ),
        ('{"format": "autopsae-features", "latent": 3}', "expected version 1 of features, got version None"),
        ('{"latent": {"latent": 1}}', ".latent: expected latent, fired"),
    ],
)
def test_a_file_that_is_no_result_is_one_line_and_no_page(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(content)
    assert verbs.run(["report", str(tmp_path / "a.json"), "--out", str(tmp_path / "r.html")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert str(tmp_path / "a.json") in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("damage", ["gamma", "birth", "expected", "prescription", "findings", "layer"])
def test_a_diagnosis_that_lacks_a_number_names_it(diagnosis: Path, tmp_path: Path, damage: str) -> None:
    content = json.loads(diagnosis.read_text())
    content["layers"][1][damage] = None
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"d.json.layers\[1\].{damage}: expected .*make it anew$"):
        page_html([tmp_path / "d.json"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("latent,fired\n0,1\n", "(KeyError: 'rate')"),
        ("latent,fate,cause,fired,rate,shift,signal\n", "(it has no rows)"),
        ("latent,fate,cause,fired,rate,shift,signal\n0,alive,none,1,nan,0,1\n", "(rate is not finite)"),
        ("latent,fate,cause,fired,rate,shift,signal\n0,alive,none,x,0,0,1\n", "(invalid literal for int()"),
    ],
)
def test_a_table_that_is_none_of_an_autopsy_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError) as raised:
        page_html([tmp_path / "a.csv"])
    said = str(raised.value)
    assert said.startswith(
        f"{tmp_path / 'a.csv'}: expected the table of an autopsy with fate, cause, latent, fired"
    )
    assert message in said


@pytest.mark.parametrize("kind", ["autopsy", "features"])
def test_results_of_a_version_without_a_mark_are_shown_as_those_with_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.json"
    pages.save_autopsy(path) if kind == "autopsy" else pages.save_features(path, tmp_path / "b.json")
    content = json.loads(path.read_text())
    assert (content.pop("format"), content.pop("version")) == (f"autopsae-{kind}", 1)
    with_it = page_html([path])
    path.write_text(json.dumps(content))
    assert page_html([path]) == with_it


def test_folders_that_hold_no_finished_run_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got a folder without summary.json and sweep.json"):
        page_html([tmp_path])
    (tmp_path / "birth.json").write_text("{}")
    with pytest.raises(InputError, match="expected a finished run or sweep, got one that goes on; resume it"):
        page_html([tmp_path])


def test_a_good_result_beside_a_bad_one_makes_no_page(diagnosis: Path, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("before")
    with pytest.raises(InputError, match=r"nothing.json: no such file or folder"):
        save_page([diagnosis, tmp_path / "nothing.json"], tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "before"


def test_a_changed_summary_is_refused_by_its_checksum(tmp_path: Path) -> None:
    x = pages.tokens(6.0)
    run(pages.entry("zero", 1e-3), x[:500], x[500:], tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    summary.write_text(summary.read_text().replace('"steps": 40', '"steps": 41'))
    with pytest.raises(InputError, match="got other content than its checksum says"):
        page_html([tmp_path / "run"])


def test_a_record_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert read_lines(path, most=5) == ([], 0)
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": "a"}\n{"torn')
    with pytest.raises(
        InputError, match=r"records.jsonl: expected a record in line 3, could not read it \(no step"
    ):
        read_lines(path, most=5)
    path.write_text('{"step": 0, "relu": 0.5}\n{"step": 1}\n')
    assert read_lines(path, most=5) == ([{"step": 0, "dead_by_relu": 0.5}, {"step": 1}], 2)


def test_a_result_of_another_version_is_shown_and_said(diagnosis: Path, tmp_path: Path) -> None:
    content = json.loads(diagnosis.read_text())
    content["provenance"]["autopsae"] = "9.9<9"
    (tmp_path / "d.json").write_text(json.dumps(content))
    page = page_html([tmp_path / "d.json"])
    assert "It was written by autopsae 9.9&lt;9, and is shown by 0.1.0." in page
    assert "It was written by" not in page_html([diagnosis])


def test_what_the_page_is_called_and_made_of_is_checked_before_it_is_made(
    diagnosis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"a.pdf: expected a page named .html, got '.pdf'"):
        save_page([diagnosis], tmp_path / "a.pdf")
    with pytest.raises(InputError, match="page: expected at least one result, got none"):
        save_page([], tmp_path / "a.html")
    with pytest.raises(InputError, match=r"page: expected a path, or a result with to_dict\(\), got 3"):
        page_html([3])
    assert verbs.run(["report"]) == 2
    assert "report: expected results, got none" in capsys.readouterr().err
