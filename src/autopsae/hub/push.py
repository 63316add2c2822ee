"""A trained SAE, with its model card, sent to the Hugging Face Hub in one commit: all of it, or nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace as replaced
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autopsae.arrays import InputError
from autopsae.files import write_text
from autopsae.hub.card import model_card
from autopsae.hub.published import PRESCRIPTION, SUMMARY_FILE, Published, keep_provenance, read_published
from autopsae.interop import saelens
from autopsae.interop.hub import HUB, hub_errors, import_hub, split_name
from autopsae.run.finished import SUMMARY
from autopsae.saved import save_object
from autopsae.words import list_names

CARD = "README.md"
SAELENS_FOLDER = "saelens"


def push(
    folder: str | Path,
    repository: str,
    *,
    prescription: str | Path | None = None,
    diagnosis: str | Path | None = None,
    trained_on: str | None = None,
    model_name: str | None = None,
    hook_name: str | None = None,
    license: str | None = None,
    public: bool = False,
    replace: bool = False,
) -> str:
    """Send a trained SAE to a repository on the Hugging Face Hub, and return the address of its page.

    The repository is created if it is not there. It gets our pair of files, a folder `saelens` for SAELens (unless
    SAELens has no such SAE), the summary of the training, the prescription, and a model card. Of paths of this
    machine, only the last name is sent. The token is that of `hf auth login` or HF_TOKEN.

    folder: that of a run of `autopsae train`, or any path that `load_sae` takes.
    repository: its name, `owner/name`.
    prescription: the pair of files that `diagnose --prescriptions` wrote, to be sent along.
    diagnosis: the JSON that `diagnose --json` wrote, which says gamma of the layer.
    trained_on: what it was trained on, in words, for the card.
    model_name, hook_name: where its tokens come from, for the card and for SAELens.
    license: as the Hub names licences, such as mit; the card says it.
    public: a repository that is created can be read by everybody; otherwise by its owner alone.
    replace: files of these names that are there may be replaced.

    Raises InputError for what `folder` or the other files may have, where the repository has such files already,
    and for whatever the Hub or the network says. All files are sent in one commit, so nothing is half sent.
    """
    where, inside = split_name(repository.removeprefix(HUB))
    if inside:
        raise InputError(f"{repository}: expected owner/name, got a folder in it; pass the name of a repository")
    hub = import_hub(f"push to {where}")
    published = read_published(folder, _path(prescription), _path(diagnosis))
    published = replaced(published, trained_on=trained_on, model_name=model_name, hook_name=hook_name)
    with _prepare_files(published, where, license) as place:
        names = sorted(str(file.relative_to(place).as_posix()) for file in place.rglob("*") if file.is_file())
        with hub_errors(f"{where}: could not be written on the Hub"):
            return _send(hub, where, place, names, public=public, replace=replace)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


@contextmanager
def _prepare_files(published: Published, repository: str, license: str | None) -> Iterator[Path]:
    """A folder with all that is sent, until the context ends."""
    with TemporaryDirectory(prefix="autopsae-push-") as temporary, keep_provenance(published.wrote):
        place = Path(temporary)
        published.sae.save(place / "sae")
        in_saelens = _write_for_saelens(published, place / SAELENS_FOLDER)
        if published.summary:
            save_object(place / SUMMARY_FILE, format=SUMMARY, content=published.summary)
        if published.prescription:
            published.prescription.save(place / PRESCRIPTION)
        card = model_card(published, repository, license=license, in_saelens=in_saelens)
        write_text(place / CARD, card)
        yield place


def _write_for_saelens(published: Published, folder: Path) -> bool:
    """Whether SAELens has such an SAE; then its files are in the folder."""
    try:
        saelens.write(published.sae, folder, model_name=published.model_name, hook_name=published.hook_name)
    except InputError:
        return False
    return True


def _send(hub: Any, repository: str, place: Path, names: list[str], *, public: bool, replace: bool) -> str:
    """Create the repository if it is not there, and commit the files. Returns the address."""
    api = hub.HfApi(library_name="autopsae")
    address = str(api.create_repo(repository, private=not public, exist_ok=True))
    about = api.model_info(repository)
    there = {file.rfilename for file in about.siblings or ()} & {*names}
    if there and not replace:
        raise InputError(
            f"{repository}: expected a repository without {list_names(sorted(there))}, got one that has them; pass "
            "another name, or replace them (--replace)"
        )
    files = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(place / name)) for name in names]
    # A commit that came in between is refused, so that nobody's files are replaced unseen.
    api.create_commit(repository, files, commit_message="SAE by autopsae", parent_commit=about.sha)
    return address
