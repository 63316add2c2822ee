"""`autopsae convert` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autopsae.activations.store import open_activations
from autopsae.arrays import InputError
from autopsae.cli.main import main
from autopsae.evaluation.autopsy import autopsy
from autopsae.interop.convert import load_sae
from autopsae.sae.sparsity import JumpReLU
from tests import processes
from tests.interop import suites
from tests.interop.formats import an_sae, tokens, written


def convert(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return processes.run(processes.command, "convert", *arguments)


def test_an_sae_goes_through_all_formats_and_comes_back_the_same(tmp_path: Path) -> None:
    place = written(tmp_path / "autopsae", "autopsae")
    for to in ("saelens", "dictionary_learning", "sparsify"):
        done = convert(place, tmp_path / to, "--to", to)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / to}: topk SAE of 15 latents on 6 dimensions, for {to}\n"
        place = tmp_path / to
    done = convert(place, tmp_path / "back", "--to", "autopsae")
    assert done.returncode == 0, done.stderr
    assert torch.allclose(load_sae(tmp_path / "back")(tokens()), an_sae()(tokens()), atol=1e-5)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere", ["--to", "saelens"], "nowhere: no such file or folder; check the path of the SAE"),
        ("SOURCE", ["--to", "sparsify"], "sparsify: expected topk or groupmax, got jumprelu, for which it has no"),
        ("hf:owner", ["--to", "saelens"], "hf:owner: expected hf:owner/repository, or hf:owner/repository/folder"),
    ],
)
def test_what_cannot_be_ends_with_one_line_and_no_file(
    tmp_path: Path, source: str, options: list[str], message: str
) -> None:
    made = written(tmp_path / "source", "saelens", an_sae(JumpReLU()))
    done = convert(made if source == "SOURCE" else source, tmp_path / "out", *options)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error:")] == done.stderr.splitlines()
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_no_file_says_is_told_on_the_command_line(tmp_path: Path) -> None:
    source = suites.qwen_scope(tmp_path / "layer3.sae.pt").path
    done = convert(source, tmp_path / "out", "--to", "saelens")
    assert done.returncode == 2
    assert (
        "expected one number of active latents per token, which is not in the file, got none; pass k" in done.stderr
    )
    done = convert(source, tmp_path / "out", "--to", "saelens", "--k", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/out: topk SAE of 15 latents on 6 dimensions, for saelens\n"
    done = convert(tmp_path / "out", tmp_path / "again", "--to", "saelens", "--scale", "2")
    assert "expected no scale, as its files say how tokens are scaled (none), got 2.0" in done.stderr


def test_another_librarys_sae_is_autopsied(tmp_path: Path) -> None:
    folder = written(tmp_path / "theirs", "saelens")
    np.save(tmp_path / "x.npy", tokens().repeat(40, 1).numpy())
    command = ["autopsy", folder, tmp_path / "x.npy", "--json", tmp_path / "a.json"]
    done = processes.run(processes.command, *command)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["d_sae"] == 15
    assert found["alive"] + found["dead_by_relu"] + found["dead_by_topk"] == 15
    assert found["alive"] == int((load_sae(folder).encode(tokens()) > 0).any(dim=0).sum())


def test_an_autopsy_is_told_what_no_file_says_as_a_conversion_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = suites.qwen_scope(tmp_path / "layer3.sae.pt").path
    np.save(tmp_path / "x.npy", torch.cat([tokens() for _ in range(20)]).numpy())
    command = ["autopsae", "autopsy", str(source), str(tmp_path / "x.npy"), "--json", str(tmp_path / "x.json")]

    def refused(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", [*command, *options])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        return capsys.readouterr().err

    assert (
        "expected one number of active latents per token, which is not in the file, got none; pass k" in refused()
    )
    assert "expected no scale, as its files say everything; leave it out" in refused("--k", "3", "--scale", "2")
    assert "load_sae: expected k >= 1, got 0" in refused("--k", "0")
    monkeypatch.setattr(sys, "argv", [*command, "--k", "3"])
    main()
    expected = autopsy(load_sae(source, k=3), open_activations(tmp_path / "x.npy"))
    assert json.loads((tmp_path / "x.json").read_text())["dead"] == expected.to_dict()["dead"]


def test_a_k_that_contradicts_the_files_of_an_sae_is_refused_with_both(tmp_path: Path) -> None:
    folder = tmp_path / "SAE-Res-Qwen3-8B-Base-W1K-L0_50"
    folder.mkdir()
    made = suites.qwen_scope(folder / "layer3.sae.pt")
    with pytest.raises(InputError, match=r"expected one number of active latents per token.* got 40 and 50; pass"):
        load_sae(made.path, k=40)
