"""The checkpoint of several ranks is whole or not there, and what is wrong with it is said in a line."""

import json
from pathlib import Path

import pytest

from autopsae.arrays import InputError
from autopsae.kernels.ranks import ALONE
from autopsae.kinds import anything
from autopsae.saved import load_object, save_object
from autopsae.training.loop import Training
from autopsae.training.rank_files import FORMAT, latent_axis, remove_on_ranks
from tests.training.members import tokens
from tests.training.on_ranks import CASES, fail_to_save, on_ranks, train_from, train_until

NAME = "few steps"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a checkpoint of two ranks."""
    folder = tmp_path_factory.mktemp("saved")
    on_ranks(2, train_until, NAME, folder / "checkpoint.json", 20)
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def path(saved: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in saved.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path / "checkpoint.json"


def load(path: Path) -> None:
    Training([CASES[NAME].member(ALONE)], tokens()).load(path)


def test_a_damaged_file_is_refused_by_name(path: Path) -> None:
    for file in sorted(path.parent.glob("*.safetensors")):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"{file.name}: expected what was saved, got other content"):
            load(path)
        content[-3] ^= 1
        file.write_bytes(content)
    load(path)


def test_a_missing_file_is_refused_by_name(path: Path) -> None:
    [second] = path.parent.glob("*.rank1of2.safetensors")
    second.unlink()
    with pytest.raises(InputError, match=second.name):
        load(path)


def test_a_list_that_was_changed_is_refused(path: Path) -> None:
    content = json.loads(path.read_text())
    content["files"][1]["first"] -= 1
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected what was saved, got other content than its checksum says"):
        load(path)


@pytest.mark.parametrize("border", [15, 17, 31])
def test_a_list_of_other_ranges_than_the_files_have_is_refused(path: Path, border: int) -> None:
    content = load_object(path, format=FORMAT, kind=anything)
    content["files"][0]["end"] = content["files"][1]["first"] = border
    save_object(path, format=FORMAT, content=content)
    with pytest.raises(InputError):
        load(path)


def test_a_checkpoint_of_other_settings_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="expected a checkpoint of"):
        Training([CASES["topk"].member(ALONE)], tokens()).load(path)


def test_where_one_rank_cannot_write_the_old_checkpoint_stays(path: Path, tmp_path: Path) -> None:
    before = {file.name for file in path.parent.iterdir()}
    told = on_ranks(3, fail_to_save, NAME, path)
    assert all("rank2of3.safetensors: no space left" in words for words in told)
    assert {file.name for file in path.parent.iterdir() if file.is_file()} == before
    assert train_from(ALONE, NAME, path).records


def test_all_files_are_removed(path: Path) -> None:
    remove_on_ranks(path)
    assert not [*path.parent.iterdir()]


def test_rows_and_entries_by_latent_are_told_from_what_all_ranks_have() -> None:
    axes = {"sae.0.W_dec": 0, "sae.0.log_threshold": 0, "state.moments.W_enc": 2, "state.since_fired": 1}
    common = ["sae.0.b_dec", "sae.0.learned_threshold", "state.moments.b_dec", "state.sum", "state.changes"]
    common += ["place.0.held", "state.encoder_lengths", "sae.0.center", "state.resampled"]
    assert {name: latent_axis(name) for name in (*axes, *common)} == axes | dict.fromkeys(common)
