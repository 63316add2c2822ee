"""The comparison of two trees: a changed bit is seen, a renamed key is not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from experiments.same_numbers.compare import compare, report, translated
from experiments.same_numbers.key_map import Option
from experiments.same_numbers.paths import matches, rename
from experiments.same_numbers.verbs import Verb, verbs
from experiments.same_numbers.written import digest, read_folder
from safetensors.torch import save_file


def rules(**more: Any) -> Any:
    return SimpleNamespace(**{"RENAMED": (), "VALUES": (), "ADDED": {}, "REMOVED": {}, "IGNORED": {}, **more})


def written(folder: Path, *, loss: float = 0.1, weight: float = 1.0, key: str = "loss") -> dict[str, Any]:
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps({"layers": [{"layer": "h.3", key: loss, "say": "so it is"}]}))
    save_file({"W": torch.tensor([0.5, weight])}, folder / "a.safetensors")
    return read_folder(folder)


def test_one_bit_is_a_difference_and_is_shown(tmp_path: Path) -> None:
    before = written(tmp_path / "before")
    assert compare(before, written(tmp_path / "same"), rules()).equal
    changed = compare(before, written(tmp_path / "loss", loss=0.1 + 2**-56), rules())
    assert not changed.equal
    assert "different: a.json/layers/h.3/loss: 0.1 -> 0.10000000000000002" in report(changed)
    moved = written(tmp_path / "weight", weight=1 + 2**-23)
    assert list(compare(before, moved, rules()).different) == ["a.safetensors/W"]


def test_a_renamed_key_is_compared_under_its_new_name(tmp_path: Path) -> None:
    before, after = written(tmp_path / "a"), written(tmp_path / "b", key="error")
    plain = compare(before, after, rules())
    assert (plain.before_only, plain.after_only) == (["a.json/layers/h.3/loss"], ["a.json/layers/h.3/error"])
    renamed = rules(RENAMED=(("**/loss", "**/error"), ("**/gone", "**/left")))
    assert compare(before, after, renamed).equal
    assert compare(before, after, renamed).unused == ["**/gone -> **/left"]
    other = written(tmp_path / "c", key="error", loss=0.2)
    assert list(compare(before, other, renamed).different) == ["a.json/layers/h.3/error"]


def test_sentences_may_differ_and_names_may_not() -> None:
    assert compare({"a": "it is so"}, {"a": "so it is"}, rules()).equal
    assert not compare({"a": "median"}, {"a": "mean"}, rules()).equal
    assert compare({"a": "median"}, {"a": "mean"}, rules(VALUES=(("*", "median", "mean"),))).equal
    assert not compare({"a": 1}, {"a": 1.0}, rules()).equal


def test_two_paths_that_get_one_name_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"a/x and b/x are both renamed to c/x; mend key_map.RENAMED"):
        compare({"a/x": 1, "b/x": 1}, {"c/x": 1}, rules(RENAMED=(("a/x", "c/x"), ("b/x", "c/x"))))


def test_stars_stand_for_parts_of_a_path() -> None:
    assert matches("*/b", "a/b")
    assert not matches("*/b", "a/a/b")
    assert matches("**/b", "a/a/b")
    assert rename("d/all.json/birth/whiten_0.3/relu", "**/birth/*/relu", "**/born/*/by_relu") == (
        "d/all.json/born/whiten_0.3/by_relu"
    )
    with pytest.raises(ValueError, match="expected the same stars in the same order"):
        rename("a/b", "*/b", "b")


def test_options_that_moved_are_given_in_the_new_words(tmp_path: Path) -> None:
    verb = Verb(
        name="v", words=("train", "SOURCE", "--alphas", "0.2", "0.7", "--revive", "X", "--csv", "--steps", "9")
    )
    options = {
        ("train", "--alphas"): Option(commas=True),
        ("train", "--revive"): Option(name="--recentre"),
        ("train", "--csv"): Option(config="keep.csv"),
        ("train", "--steps"): Option(config="steps"),
    }
    place = tmp_path / "configs" / "v.json"
    assert translated(verb, tmp_path, options).words == (
        *("train", "SOURCE", "--alphas", "0.2,0.7", "--recentre", "X", "--config", str(place)),
    )
    assert json.loads(place.read_text()) == {"keep": {"csv": True}, "steps": 9}
    assert translated(verb, tmp_path, {}) == verb


def test_a_digest_tells_type_shape_and_bytes() -> None:
    zero = torch.zeros(2, 3)
    assert digest(zero) != digest(zero.T)
    assert digest(zero) != digest(zero.double())
    assert digest(zero) != digest(-zero)
    assert digest(zero.bfloat16()).startswith("tensor:bfloat16[2,3]:")


def test_names_of_verbs_are_unique() -> None:
    names = [verb.name for verb in verbs()]
    assert len({*names}) == len(names)


def test_a_tree_in_which_one_number_is_changed_gives_others(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    shutil.copytree(root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from experiments.same_numbers.names import get; print(get('dead_by_relu')(5.0, 1000))"

    def said(source: Path) -> str:
        environment = {"PYTHONPATH": f"{source}:{root}", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    [module] = [path for path in (tmp_path / "src").rglob("*.py") if "1 - 1 / tokens" in path.read_text()]
    assert said(tmp_path / "src") == said(root / "src")
    module.write_text(module.read_text().replace("1 - 1 / tokens", "1 - 1.0001 / tokens"))
    assert said(tmp_path / "src") != said(root / "src")
