"""A package that is not installed: one message, whatever needs it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.activations.formats.arrow import import_pyarrow
from autopsae.activations.presets import load_model
from autopsae.arrays import InputError
from autopsae.diagnosis.survey import Survey
from autopsae.extras import package_error
from autopsae.features.flat_files import flat_file_annotations
from autopsae.features.probes import import_sklearn
from autopsae.features.tasks import probe_task_names
from autopsae.hub.pull import pull
from autopsae.hub.push import push
from autopsae.interop.hub import fetch
from autopsae.models.diffusion import load_diffusion
from autopsae.models.dinov2_small import read_onnx
from autopsae.models.pictures import open_picture
from autopsae.models.pretrained import load_pretrained
from autopsae.models.records import sequences_in
from autopsae.models.spliceai import read_keras
from autopsae.report.page.write import check_page
from autopsae.report.plots import check_figure
from autopsae.tables import check_table, frame
from autopsae.training.logs import TensorBoard
from autopsae.training.wandb_runs import WandBFolder

pytestmark = pytest.mark.quick


def test_the_message_says_what_needs_the_package_why_it_is_not_there_and_what_to_install() -> None:
    error = ImportError("No module named 'pandas'")
    assert str(package_error("to_frame", "pandas", error, install="autopsae[report]")) == (
        "to_frame: expected the package pandas (ImportError: No module named 'pandas'); pip install "
        "'autopsae[report]'"
    )
    assert str(package_error("a", "b", error, install="b")).endswith("; pip install b")


def fasta(folder: Path) -> Path:
    (folder / "a.fasta").write_text(">one\nMKT\n")
    return folder / "a.fasta"


PLACE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
NEEDED: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "frame": ("pandas", "'autopsae[report]'", lambda _: frame({"a": [1]})),
    "frame of a survey": ("pandas", "'autopsae[report]'", lambda _: Survey(()).to_frame()),
    "parquet table": ("pyarrow", "'autopsae[report]'", lambda folder: check_table(folder / "a.parquet")),
    "figure": ("matplotlib", "'autopsae[report]'", lambda folder: check_figure(folder / "a.png")),
    "parquet activations": ("pyarrow", "pyarrow", lambda folder: import_pyarrow(folder, "a Parquet file")),
    "model": ("transformers", "'autopsae[models]'", lambda folder: load_model(str(folder))),
    "image": ("PIL", "'autopsae[images]'", lambda folder: open_picture(folder / "a.png", "a.png")),
    "sequences": ("Bio", "'autopsae[bio]'", lambda folder: next(sequences_in(fasta(folder)))),
    "vision": ("transformers", "'autopsae[models]'", lambda folder: load_pretrained(str(folder), {}, **PLACE)),
    "diffusion": ("diffusers", "'autopsae[diffusers]'", lambda folder: load_diffusion("a", str(folder), **PLACE)),
    "onnx": ("onnx", "onnx", lambda folder: read_onnx("dinov2-small", folder / "a.onnx")),
    "h5py": ("h5py", "h5py", lambda folder: read_keras("spliceai", folder / "a.h5")),
    "hub": ("huggingface_hub", "'autopsae[hub]'", lambda _: fetch("a/b", [], [])),
    "push": ("huggingface_hub", "'autopsae[hub]'", lambda folder: push(folder, "a/b")),
    "pull": ("huggingface_hub", "'autopsae[hub]'", lambda folder: pull("a/b", folder / "new")),
    "tensorboard": ("tensorboard", "'autopsae[tensorboard]'", TensorBoard),
    "wandb": ("wandb", "'autopsae[wandb]'", lambda folder: WandBFolder(folder, "p")),
    "probes": ("sklearn", "'autopsae[features]'", lambda _: import_sklearn("sklearn.metrics")),
    "sparse matrices": ("scipy", "'autopsae[features]'", lambda _: import_sklearn("scipy.sparse")),
    "page": ("jinja2", "'autopsae[page]'", lambda folder: check_page(folder / "a.html")),
    "tasks": ("zstandard", "'autopsae[features]'", lambda folder: probe_task_names(folder)),
    "feature tables": ("Bio", "'autopsae[bio]'", lambda folder: flat_file_annotations(fasta(folder))),
}


@pytest.mark.parametrize("what", NEEDED)
def test_a_missing_package_is_named_with_what_to_install(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, install, call = NEEDED[what]
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    if package == "tensorboard":
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError) as raised:
        call(tmp_path)
    message = str(raised.value)
    assert f": expected the package {package} (" in message
    assert message.endswith(f"; pip install {install}")
    assert "\n" not in message
