"""How an SAE starts, by the name of it: a remedy from a layer's statistics, or a saved prescription."""

from pathlib import Path

from autopsae.arrays import InputError, Mapped, Tokens
from autopsae.defaults import STARTS, Strays
from autopsae.diagnosis.prescription import Prescription
from autopsae.files import pair_files
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten
from autopsae.run.data import Counted, count_tokens
from autopsae.statistics.collect import Statistics
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import layer_norm
from autopsae.statistics.spectrum import Spectrum
from autopsae.statistics.strays import STRAY, leave_out, weigh_down


def start_from(name: str, statistics: Statistics, *, alpha: float, rank: int) -> Remedy:
    """The remedy that a start is called by: zero, mean, median, whiten (with `alpha`) or asi (with `rank`).

    Raises InputError for another name, and as `whiten` and `active_subspace`.
    """
    if name == "zero":
        return untouched(statistics.d_in)
    if name == "mean":
        return center(statistics.raw.mean, "mean")
    median = geometric_median(statistics.sample)
    if name == "median":
        return center(median, "median")
    spectrum = Spectrum.of(statistics.raw.covariance)
    if name == "whiten":
        return whiten(spectrum, median, alpha=alpha)
    if name == "asi":
        return active_subspace(spectrum, median, rank=rank)
    raise InputError(f"start: expected one of {', '.join(STARTS)}, got {name!r}")


def load_prescription(path: str | Path) -> Prescription:
    """A saved prescription. Raises InputError for a folder, and as `Prescription.load`."""
    if Path(path).is_dir() and not pair_files(path)[0].exists():
        raise InputError(f"{path}: expected the name of a prescription, got a folder; give one in it: {path}/LAYER")
    return Prescription.load(path)


def load_start(path: str | Path, d_in: int) -> Prescription:
    """A saved prescription for a layer of width `d_in`. Raises InputError as `load_prescription`, and for another
    width.
    """
    prescription = load_prescription(path)
    if prescription.d_in != d_in:
        raise InputError(
            f"{path}: expected a prescription for d_in = {d_in}, got one for {prescription.d_in} (layer "
            f"{prescription.layer!r}); diagnose this layer"
        )
    return prescription


def without_strays(tokens: Tokens, how: Strays, statistics: Statistics) -> Tokens:
    """The training tokens, those of over ten times the median norm kept, left out, or drawn towards the geometric
    median until they are that far from it; counted, where not all are left.
    """
    if how == "keep":
        return tokens
    limit = STRAY * statistics.norms.typical
    if how == "leave_out":
        left = leave_out(tokens, limit)
        return Counted(left, count_tokens(left))
    return Counted(weigh_down(tokens, limit, geometric_median(statistics.sample)), statistics.raw.tokens)


def layer_norm_tokens(tokens: Tokens) -> Mapped:
    """The same tokens, each normalised: what an SAE with `layer_norm` sees, for statistics of it."""
    return Mapped(tokens, layer_norm)
