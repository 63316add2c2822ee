"""The Hugging Face Hub: names of repositories, one line for whatever it answers, and the files of an SAE fetched.

`hf:owner/repository/folder/in/it` names an SAE there. Only the files that a reader may ask for are fetched.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.words import printable

HUB = "hf:"

_STATUS = {
    401: "the Hub wants a token that it knows, or there is no such repository; check the name, and log in (hf auth "
    "login) or set HF_TOKEN",
    403: "this token has no right to do that; take one that may write to the repository, or ask its owner",
    404: "there is no such repository, file or revision; check the name (a private one needs a token: hf auth "
    "login)",
    409: "the repository has changed meanwhile; run the same again",
    412: "the repository has changed meanwhile; run the same again",
    413: "the Hub takes no files as large as these; store the SAE in bfloat16",
    429: "the Hub wants fewer requests; wait a while and run the same again",
}


def import_hub(what: str) -> Any:
    """The package huggingface_hub. Raises InputError where it is not installed; what: needs it."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise package_error(what, "huggingface_hub", error, install="autopsae[hub]") from error
    return huggingface_hub


def split_name(name: str) -> tuple[str, str]:
    """("owner/repository", "folder/in/it" or "") of a name on the Hub. Raises InputError for another name."""
    owner, repository, *rest = [*name.split("/"), "", ""][: max(2, name.count("/") + 1)]
    if not owner or not repository or {"", ".", ".."} & {*rest}:
        raise InputError(f"{HUB}{name}: expected {HUB}owner/repository, or {HUB}owner/repository/folder/in/it")
    return f"{owner}/{repository}", "/".join(rest)


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Whatever the Hub, the network or its client raises within is one InputError; what: could not be done."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the errors of the Hub and of the network have no common class
        raise InputError(f"{what} ({_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What went wrong, a closing bracket, and what to try."""
    chain = list[BaseException]()
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    status = next((_status(one) for one in chain if _status(one)), None)
    if status is not None:
        advice = _STATUS.get(status, "the Hub is not in order; wait a while and run the same again")
        return f"HTTP {status}): {advice}"
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    if "OfflineModeIsEnabled" in kinds:
        return "HF_HUB_OFFLINE is set): nothing may be fetched; unset it, or name a folder on this machine"
    said = next((line for line in str(chain[-1]).splitlines() if line), "")
    said = printable(f"{type(chain[-1]).__name__}: {said}", 160)
    if kinds & {"ConnectError", "ConnectTimeout", "TimeoutException", "ConnectionError", "gaierror"}:
        return f"{said}): no connection; check the network, and HF_ENDPOINT if it is set"
    if kinds & {"NetworkError", "RemoteProtocolError", "IncompleteRead"} or "onsistency" in said:
        return f"{said}): the connection was cut; run the same again, and it goes on from there"
    return f"{said}); check the name and the network"


def _status(error: BaseException) -> int | None:
    """The HTTP status that the Hub answered, from 400 on; None where this is no such answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def fetch(name: str, files: Collection[str], suffixes: Collection[str]) -> Path:
    """Where `owner/repository/folder/in/it`, or a file in it, lies on this machine once it is fetched.

    files: those of a folder that are wanted; suffixes: of names that are files themselves. Raises InputError for a
    name that is none, and for whatever the Hub or the network says.
    """
    repository, inside = split_name(name)
    hub = import_hub(f"{HUB}{name}")
    is_file = Path(inside).suffix in suffixes
    wanted = [inside] if is_file else [f"{inside}/{file}" if inside else file for file in files]
    with hub_errors(f"{HUB}{name}: could not be fetched"):
        snapshot = Path(hub.snapshot_download(repository, allow_patterns=wanted))
    if not any((snapshot / file).is_file() for file in wanted):
        listed = inside if is_file else ", ".join(files)
        raise InputError(
            f"{HUB}{name}: expected one of {listed} there, got none; check the name, and name a file that "
            "is an SAE by itself"
        )
    return snapshot / inside
