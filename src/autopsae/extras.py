"""Packages that autopsae works without: one message wherever one of them is missing."""

from autopsae.arrays import InputError
from autopsae.words import reason


def package_error(what: str, package: str, error: ImportError, *, install: str) -> InputError:
    """The error to raise where `package` cannot be imported. what: needs it; install: what pip is to install.

    except ImportError as error:
        raise package_error("to_frame", "pandas", error, install="autopsae[report]") from error
    """
    # A shell would read the brackets of an extra.
    quoted = f"'{install}'" if "[" in install else install
    return InputError(f"{what}: expected the package {package} ({reason(error)}); pip install {quoted}")
