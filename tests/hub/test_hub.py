"""Published SAEs: sent and fetched whole or not at all, against a stand-in of the Hub on loopback."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.hub.card import model_card
from autopsae.hub.published import Published, read_published, without_paths
from autopsae.interop.convert import load_sae, save_sae
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, TopK
from autopsae.saved import load_object, provenance_of
from tests import processes
from tests.hub.stand_in import Hub, environment, running_hub
from tests.interop.formats import an_sae, tokens, written

# The client waits for a minute before it gives a failing Hub up.
COMMAND = "import sys, time; time.sleep = lambda _: None; from autopsae.cli.main import main; main()"
SENT = {
    "README.md",
    "sae.json",
    "sae.safetensors",
    "summary.json",
    "saelens/cfg.json",
    "saelens/sae_weights.safetensors",
}
PRESCRIPTION = {"prescription.json", "prescription.safetensors"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and an environment in which the client asks it alone, over plain HTTP."""
    with running_hub() as hub:
        for name, value in environment(hub, tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        yield hub


def command(*words: object, folder: Path) -> "CompletedProcess[str]":
    return processes.run(processes.code, COMMAND, *words, folder=folder)


def done(*words: object, folder: Path) -> str:
    ended = command(*words, folder=folder)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refused(*words: object, folder: Path) -> str:
    """The one line with which a command is refused; no file is then new but those of the cache."""
    before = {path for path in folder.rglob("*") if "hf" not in path.parts}
    ended = command(*words, folder=folder)
    assert ended.returncode == 2, ended.stdout
    [line] = ended.stderr.splitlines()
    assert {path for path in folder.rglob("*") if "hf" not in path.parts} == before
    return line


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in `run`, the prescription that it was born from in `p/x` and its diagnosis in d.json."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "private").mkdir()
    save_file({"x": torch.randn(3000, 8) + 3}, folder / "private" / "x.safetensors")
    sizes = ["--d-sae", "32", "--k", "4"]
    source = folder / "private" / "x.safetensors"
    done("diagnose", source, *sizes, "--json", "d.json", "--prescriptions", "p", folder=folder)
    done(
        "train",
        source,
        "--prescription",
        "p/x",
        *sizes,
        "--batch-tokens",
        "500",
        "--steps",
        "5",
        "--out",
        "run",
        folder=folder,
    )
    return folder


def test_what_is_pushed_is_pulled_and_loaded_with_the_same_weights(
    hub: Hub, training: Path, tmp_path: Path
) -> None:
    words = ["--prescription", training / "p" / "x", "--diagnosis", training / "d.json", "--license", "mit"]
    printed = done("push", training / "run", "me/first", *words, folder=tmp_path)
    assert printed == f"{hub.address}/me/first: sent; load it by autopsae.load_sae('hf:me/first')\n"
    repository = hub.repositories["me/first"]
    assert {*repository.files} == SENT | PRESCRIPTION
    assert repository.private
    assert repository.commits == 1
    done("pull", "me/first", "here", folder=tmp_path)
    ours = SAE.load(training / "run" / "sae")
    assert torch.equal(load_sae(tmp_path / "here").W_enc, ours.W_enc)
    kept = Prescription.load(tmp_path / "here" / "prescription")
    assert torch.equal(kept.b_dec, Prescription.load(training / "p" / "x").b_dec)
    assert {path.name for path in (tmp_path / "here").iterdir()} == {
        name for name in SENT | PRESCRIPTION if "/" not in name
    }
    done("pull", "hf:me/first", "here", folder=tmp_path)  # the same files are there


def test_the_folder_for_saelens_is_one_that_is_loaded_with_the_same_codes(
    hub: Hub, training: Path, tmp_path: Path
) -> None:
    done("push", training / "run", "me/second", "--public", "--hook-name", "blocks.3", folder=tmp_path)
    assert not hub.repositories["me/second"].private
    done("pull", "me/second/saelens", "there", folder=tmp_path)
    x = torch.randn(50, 8) + 3
    ours, theirs = load_sae(training / "run" / "sae"), load_sae(tmp_path / "there")
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)
    assert json.loads((tmp_path / "there" / "cfg.json").read_text())["metadata"]["hook_name"] == "blocks.3"


def test_nothing_that_is_sent_tells_of_the_folders_of_this_machine(
    hub: Hub, training: Path, tmp_path: Path
) -> None:
    words = ["--prescription", training / "p" / "x", "--diagnosis", training / "d.json"]
    done("push", training / "run", "me/third", *words, folder=tmp_path)
    for name, content in hub.repositories["me/third"].files.items():
        assert str(training).encode() not in content, name
        assert b"private/" not in content, name
    done("pull", "me/third", "here", folder=tmp_path)
    wrote = provenance_of(tmp_path / "here" / "summary.json")
    assert (wrote["command"], wrote["source"]) == ("train", "x.safetensors")
    assert wrote["settings"]["prescription"] == "x"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/a/b.npy", "b.npy"),
        ("b", "b"),
        ("C:\\a\\b", "b"),
        ("hf:a/b", "hf:a/b"),
        ("a/", "a"),
        (3, 3),
        ("/", "/"),
    ],
)
def test_a_path_becomes_its_last_name(path: Any, name: Any) -> None:
    assert without_paths({"a": [path]}) == {"a": [name]}


def test_a_repository_that_has_an_sae_is_replaced_only_when_asked(hub: Hub, training: Path, tmp_path: Path) -> None:
    hub.add("me/taken", README__md=b"mine", sae__json=b"{}", notes__txt=b"kept")
    words = ["push", training / "run", "me/taken"]
    assert refused(*words, folder=tmp_path) == (
        "error: me/taken: expected a repository without README.md, sae.json, got one that has them; pass another "
        "name, or replace them (--replace)"
    )
    assert hub.repositories["me/taken"].files["README.md"] == b"mine"
    done(*words, "--replace", folder=tmp_path)
    assert {*hub.repositories["me/taken"].files} == SENT | {"notes.txt"}
    assert hub.repositories["me/taken"].commits == 2


def test_a_commit_that_came_in_between_is_not_undone(hub: Hub, training: Path, tmp_path: Path) -> None:
    repository = hub.add("me/busy", notes__txt=b"first")

    def another() -> None:
        repository.files["sae.json"] = b"of somebody else"
        repository.commits += 1

    hub.before_commit = another
    line = refused("push", training / "run", "me/busy", folder=tmp_path)
    assert "HTTP 412): the repository has changed meanwhile; run the same again" in line
    assert repository.files == {"notes.txt": b"first", "sae.json": b"of somebody else"}


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (("POST /api/repos/create", 401), "HTTP 401): the Hub wants a token that it knows"),
        (("POST /api/repos/create", 403), "HTTP 403): this token has no right to do that"),
        (("GET /api/models/me/x", 404), "HTTP 404): there is no such repository, file or revision"),
        (("POST .*/commit/", 500), "HTTP 500): the Hub is not in order; wait a while and run the same again"),
        (("PUT /store", 500), "HTTP 500): the Hub is not in order"),
        (("POST .*/batch", 413), "HTTP 413): the Hub takes no files as large as these"),
        (("POST .*/preupload", 429), "HTTP 429): the Hub wants fewer requests"),
    ],
)
def test_a_push_that_fails_is_one_line_and_leaves_no_file_there(
    hub: Hub, training: Path, tmp_path: Path, fails: tuple[str, int], says: str
) -> None:
    hub.fails = [fails]
    line = refused("push", training / "run", "me/x", folder=tmp_path)
    assert line.startswith("error: me/x: could not be written on the Hub (")
    assert says in line
    assert not any(repository.files for repository in hub.repositories.values())


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (("GET /api/models", 401), "HTTP 401): the Hub wants a token that it knows"),
        (("GET /api/models", 404), "HTTP 404): there is no such repository, file or revision"),
        (("GET /api/models", 500), "HTTP 500): the Hub is not in order"),
        ((r"GET .*/resolve/.*/sae\.safetensors", 500), "HTTP 500): the Hub is not in order"),
        (("HEAD .*/resolve/", 403), "HTTP 403): this token has no right to do that"),
    ],
)
def test_a_pull_that_fails_is_one_line_and_leaves_no_file_here(
    hub: Hub, tmp_path: Path, fails: tuple[str, int], says: str
) -> None:
    add_ours(hub, "me/x", tmp_path)
    hub.fails = [fails]
    line = refused("pull", "me/x", "here", folder=tmp_path)
    assert line.startswith("error: me/x: could not be fetched (")
    assert says in line
    assert says in refused("convert", "hf:me/x", "there", "--to", "saelens", folder=tmp_path)
    hub.fails = []
    done("pull", "me/x", "here", folder=tmp_path)


def add_ours(hub: Hub, name: str, folder: Path) -> SAE:
    sae = an_sae()
    save_sae(sae, folder / "ours" / "sae", to="autopsae")
    files = {
        f"sae__{suffix}": (folder / "ours" / f"sae.{suffix}").read_bytes() for suffix in ("json", "safetensors")
    }
    hub.add(name, **files)
    return sae


def test_a_download_that_is_cut_leaves_nothing_and_the_next_one_is_whole(hub: Hub, tmp_path: Path) -> None:
    sae = add_ours(hub, "me/x", tmp_path)
    hub.cuts = 1000
    line = refused("pull", "me/x", "here", folder=tmp_path)
    assert "the connection was cut; run the same again, and it goes on from there" in line
    hub.cuts = 1
    done("pull", "me/x", "here", folder=tmp_path)
    assert torch.equal(load_sae(tmp_path / "here").W_enc, sae.W_enc)


def test_without_a_connection_or_offline_one_line_says_so(
    hub: Hub, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the port to which nobody listens
    for words in (["pull", "me/x", "here"], ["push", training / "run", "me/x"]):
        line = refused(*words, folder=tmp_path)
        assert "no connection; check the network, and HF_ENDPOINT if it is set" in line
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words in (["pull", "me/x", "here"], ["push", training / "run", "me/x"]):
        assert "HF_HUB_OFFLINE is set): nothing may be fetched" in refused(*words, folder=tmp_path)
    assert hub.asked == []


def test_files_that_are_there_stay(hub: Hub, tmp_path: Path) -> None:
    add_ours(hub, "me/x", tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert "full: expected a new or empty folder, got one that holds something" in refused(
        "pull", "me/x", "full", folder=tmp_path
    )
    assert "file: expected a new folder, got a file; pass another name" in refused(
        "pull", "me/x", "file", folder=tmp_path
    )
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_repository_without_an_sae_or_with_a_damaged_one_writes_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.add("me/model", model__bin=b"{}", README__md=b"a card")
    assert "expected an SAE there, got none" in refused("pull", "me/model", "here", folder=tmp_path)
    hub.add("me/damaged", sae__json=b"{}", sae__safetensors=b"x" * 100)
    assert "expected format 'autopsae-sae'" in refused("pull", "me/damaged", "here", folder=tmp_path)
    for name in ("me", "me/x/../y", "/x"):
        assert "expected hf:owner/repository" in refused("pull", name, "here", folder=tmp_path)
    assert "no such repository, file or revision" in refused(
        "pull", "me/model", "here", "--revision", "v9", folder=tmp_path
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere", "me/x"], "nowhere: no such file or folder; check the path of the SAE"),
        (["sweep", "me/x"], "sweep: expected the folder of one SAE, got a sweep; name one of the folders in it"),
        (["run", "me/x/folder"], "me/x/folder: expected owner/name, got a folder in it"),
        (["run", "me"], "hf:me: expected hf:owner/repository"),
        (["run", "me/x", "--license", "MIT License"], "license: expected a name of the Hub, such as mit"),
        (["run", "me/x", "--prescription", "other"], "expected the prescription that the SAE was born from"),
        (["run", "me/x", "--diagnosis", "run/summary.json"], "expected the JSON of a diagnosis, could not read it"),
    ],
)
def test_what_cannot_be_pushed_is_known_before_anything_is_asked(
    hub: Hub, training: Path, words: list[str], says: str
) -> None:
    (training / "sweep").mkdir(exist_ok=True)
    (training / "sweep" / "sweep.json").write_text("{}")
    made = Prescription.load(training / "p" / "x")
    made.__class__(remedy=made.remedy, reason="", layer="y", d_sae=99, sparsity=TopK(k=4)).save(training / "other")
    assert says in refused("push", *words, folder=training)
    assert hub.asked == []


def test_an_sae_of_another_library_is_pushed_without_a_summary(hub: Hub, tmp_path: Path) -> None:
    folder = written(tmp_path / "x", "dictionary_learning")
    done("push", folder, "me/theirs", "--trained-on", "a <b>noise</b>", folder=tmp_path)
    repository = hub.repositories["me/theirs"]
    assert {*repository.files} == SENT - {"summary.json"}
    assert "a &lt;b&gt;noise&lt;/b&gt;" in repository.files["README.md"].decode()


def test_a_kind_that_saelens_has_not_is_pushed_without_its_folder(hub: Hub, tmp_path: Path) -> None:
    save_sae(an_sae(GroupMax(k=3)), tmp_path / "run" / "sae", to="autopsae")
    done("push", "run", "me/groups", folder=tmp_path)
    repository = hub.repositories["me/groups"]
    assert {*repository.files} == {"README.md", "sae.json", "sae.safetensors"}
    assert "SAELens has no SAE of this kind" in repository.files["README.md"].decode()


# The card.


def test_the_card_has_the_numbers_of_the_result(training: Path) -> None:
    published = read_published(training / "run", training / "p" / "x", training / "d.json")
    card = model_card(published, "me/x", license="mit")
    summary = published.summary
    gamma = json.loads((training / "d.json").read_text())["layers"][0]["gamma"]
    assert card.startswith("---\nlibrary_name: autopsae\n")
    assert "\nlicense: mit\n---\n" in card
    assert f"| {gamma:.3g} |" in card
    assert f"{summary['dead']:.1%} on 300 held-out tokens" in card
    assert f"| {summary['fvu_raw']:.4f} |" in card
    assert "| tokens that were trained on | 2,700 |" in card
    assert "<code>x.safetensors</code>" in card
    assert 'autopsae.load_sae("hf:me/x")' in card
    assert 'SAE.from_pretrained("me/x", "saelens")' in card
    assert f"| autopsae that trained it | {published.wrote['autopsae']} |" in card


def test_the_card_says_what_is_not_known() -> None:
    card = model_card(Published(sae=an_sae(TopK(k=3))), "me/x", in_saelens=False)
    assert "The files do not say on what it was trained." in card
    assert "not recorded (`autopsae diagnose` measures it)" in card


def test_no_text_out_of_the_data_ends_the_cell_or_the_header_that_it_stands_in() -> None:
    bad = "<script>x</script> | `a` \n# [b](c) {{d}}"
    card = model_card(
        Published(sae=an_sae(BatchTopK(k=3)), wrote={"layer": bad}, trained_on=bad, model_name="a/b\nx: y"), "me/x"
    )
    assert "<script>" not in card
    assert "x: y" not in card.split("---")[1]
    [row] = [line for line in card.splitlines() if line.startswith("| in words |")]
    assert row.count("|") == 3
    assert "\n# [b]" not in card


def test_a_summary_of_another_sae_is_not_published(training: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text((training / "run" / "summary.json").read_text())
    an_sae().save(tmp_path / "run" / "sae")
    with pytest.raises(InputError, match="expected the summary of the SAE beside it, got that of another"):
        read_published(tmp_path / "run")


# Names of SAELens.

REGISTRY = """
gpt2-res:
  repo_id: me/gpt2
  model: gpt2
  saes:
  - {id: blocks.0.hook_resid_pre, path: layer_0}
  - {id: blocks.1.hook_resid_pre, path: layer_1, norm_scaling_factor: 2.5}
gpt2-transcoders:
  repo_id: me/gpt2
  conversion_func: gemma_2_transcoder
  saes: [{id: a, path: b}]
changed:
  repo_id: me/gpt2
  config_overrides: {normalize_activations: constant_norm_rescale}
  saes: [{id: a, path: b}]
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SAELens whose registry has four SAEs."""
    folder = tmp_path / "sae_lens"
    folder.mkdir()
    (folder / "pretrained_saes.yaml").write_text(REGISTRY)
    (folder / "__init__.py").write_text("raise RuntimeError('it is not to be imported')")
    monkeypatch.setattr(
        "autopsae.interop.releases.find_spec", lambda _: SimpleNamespace(origin=str(folder / "__init__.py"))
    )


def snapshots(monkeypatch: pytest.MonkeyPatch, place: Path) -> list[tuple[str, list[str]]]:
    """The hub's client is one that has all files at `place`; what it was asked for."""
    asked = []

    def snapshot_download(repository: str, *, allow_patterns: list[str], revision: str | None = None) -> str:
        asked.append((repository, allow_patterns))
        return str(place)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return asked


@pytest.mark.usefixtures("registry")
def test_a_name_of_saelens_leads_to_the_same_sae_as_its_place_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "layer_0", "saelens")
    asked = snapshots(monkeypatch, tmp_path)
    sae = load_sae("saelens:gpt2-res/blocks.0.hook_resid_pre")
    assert torch.allclose(sae(tokens()), an_sae()(tokens()), atol=1e-5)
    assert asked[0][0] == "me/gpt2"
    assert "layer_0/cfg.json" in asked[0][1]


@pytest.mark.usefixtures("registry")
def test_the_factor_of_the_registry_scales_tokens_where_the_files_do_not_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "layer_1", "saelens")
    settings = json.loads((folder / "cfg.json").read_text())
    snapshots(monkeypatch, tmp_path)
    name = "saelens:gpt2-res/blocks.1.hook_resid_pre"
    assert torch.allclose(load_sae(name)(tokens()), an_sae()(tokens()), atol=1e-5)
    settings["normalize_activations"] = "expected_average_only_in"
    (folder / "cfg.json").write_text(json.dumps(settings))
    scaled = load_sae(name)
    assert scaled.scale == pytest.approx(2.5 * an_sae().scale)
    assert torch.equal(scaled.encode(tokens()), load_sae(folder, scale=2.5).encode(tokens()))
    assert torch.equal(load_sae(name, scale=3.0).encode(tokens()), load_sae(folder, scale=3.0).encode(tokens()))


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "gpt2-res/blocks.3.hook",
            "expected an ID of the release gpt2-res, got 'blocks.3.hook'; the nearest: blocks.",
        ),
        ("gpt2-ress/a", "expected a release of the installed SAELens, got 'gpt2-ress'; the nearest: gpt2-res"),
        ("gpt2-res", "expected an ID of the release gpt2-res, got none; it has blocks.0.hook_resid_pre, blocks.1"),
        ("gpt2-transcoders/a", "expected an SAE, got what predicts other activations than it reads"),
        ("changed/a", "but SAELens changes its normalisation; load it in SAELens"),
    ],
)
def test_a_name_that_saelens_does_not_have_is_one_line_with_the_nearest(name: str, says: str) -> None:
    with pytest.raises(InputError) as raised:
        load_sae(f"saelens:{name}")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_saelens_its_names_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopsae.interop.releases.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"RELEASE/ID: expected the package sae_lens .* pip install sae-lens"):
        load_sae("saelens:a/b")


def test_the_registry_of_the_installed_saelens_is_read_as_it_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = pytest.importorskip("sae_lens.loading.pretrained_saes_directory")
    from autopsae.interop.releases import name_on_hub

    release = registry.get_pretrained_saes_directory()["gpt2-small-res-jb"]
    for sae_id, path in release.saes_map.items():
        assert name_on_hub(f"{release.release}/{sae_id}") == (f"{release.repo_id}/{path}", None)


def test_saelens_loads_what_was_pushed(hub: Hub, training: Path, tmp_path: Path) -> None:
    pytest.importorskip("sae_lens")
    done("push", training / "run", "me/for-saelens", folder=tmp_path)
    code = (
        "import torch; from sae_lens import SAE; x = torch.randn(9, 8) + 3; "
        "sae = SAE.from_pretrained('me/for-saelens', 'saelens'); "
        "import autopsae; ours = autopsae.load_sae('hf:me/for-saelens'); "
        "print(torch.allclose(sae(x), ours(x), atol=1e-4))"
    )
    ended = processes.run(processes.code, code, folder=tmp_path)
    assert ended.stdout.splitlines()[-1:] == ["True"], ended.stderr


def test_the_summary_that_is_pulled_is_read_as_the_one_that_was_written(
    hub: Hub, training: Path, tmp_path: Path
) -> None:
    done("push", training / "run", "me/x", folder=tmp_path)
    done("pull", "me/x", "here", folder=tmp_path)
    read = [
        load_object(folder / "summary.json", format="autopsae-summary", kind=lambda _: None)
        for folder in (training / "run", tmp_path / "here")
    ]
    assert read[0] == read[1]
