"""The same tokens, written in every layout that can be read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from autopsae.activations.shards import ShardWriter

SEQUENCES, LENGTH, D_IN = 40, 15, 16
TOKENS = SEQUENCES * LENGTH
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(TOKENS, D_IN, generator=GENERATOR) + 2 * torch.randn(D_IN, generator=GENERATOR)
BATCHED = X.view(SEQUENCES, LENGTH, D_IN)


def numpy_file(folder: Path) -> Path:
    np.save(folder / "x.npy", X.numpy())
    return folder / "x.npy"


def numpy_sequences(folder: Path) -> Path:
    np.save(folder / "x.npy", BATCHED.numpy())
    return folder / "x.npy"


def numpy_by_column(folder: Path) -> Path:
    np.save(folder / "x.npy", np.asfortranarray(BATCHED.numpy()))
    return folder / "x.npy"


def numpy_big_endian(folder: Path) -> Path:
    np.save(folder / "x.npy", X.numpy().astype(">f4"))
    return folder / "x.npy"


def numpy_archive(folder: Path) -> Path:
    np.savez(folder / "x.npz", x=BATCHED.numpy(), ids=np.arange(TOKENS))
    return folder / "x.npz"


def numpy_compressed(folder: Path) -> Path:
    np.savez_compressed(folder / "x.npz", x=X.numpy(), ids=np.arange(TOKENS))
    return folder / "x.npz"


def numpy_shards(folder: Path) -> Path:
    for number, piece in enumerate(X.split(53)):  # 12 of them: the tenth comes after the ninth
        np.save(folder / f"x-shard-{number}.npy", piece.numpy())
    np.save(folder / "ids.npy", np.arange(TOKENS))
    return folder


def archive_shards(folder: Path) -> Path:
    for number, piece in enumerate(X.split(250)):
        np.savez_compressed(folder / f"{number}.npz", x=piece.numpy())
    return folder


def safetensors_file(folder: Path) -> Path:
    save_file({"x": X, "ids": torch.arange(TOKENS)}, folder / "x.safetensors")
    return folder / "x.safetensors"


def safetensors_sequences(folder: Path) -> Path:
    save_file({"x": BATCHED, "ids": torch.arange(TOKENS)}, folder / "x.safetensors")
    return folder / "x.safetensors"


def safetensors_shards(folder: Path) -> Path:
    for number, piece in enumerate(X.split(53)):
        save_file({"x": piece.clone()}, folder / f"{number}.safetensors")
    (folder / "._0.safetensors").write_bytes(b"\0\5\x16\7Mac OS X")
    return folder


def harvest_folder(folder: Path) -> Path:
    writer = ShardWriter(folder, request={}, shard_tokens=200)
    for number, piece in enumerate(X.split(100)):
        writer.add({"x": piece}, {"document": torch.full((len(piece),), number)})
    writer.finish()
    return folder


def torch_tensor(folder: Path) -> Path:
    torch.save(BATCHED, folder / "x.pt")
    return folder / "x.pt"


def torch_dict(folder: Path) -> Path:
    torch.save({"x": X, "ids": torch.arange(TOKENS), "model": "gpt2"}, folder / "a.pth")
    return folder / "a.pth"


def torch_list(folder: Path) -> Path:
    torch.save([*X.clone().split(170)], folder / "x.pt")
    return folder / "x.pt"


def torch_strided(folder: Path) -> Path:
    torch.save(X.T.contiguous().T, folder / "x.pt")
    return folder / "x.pt"


def torch_old(folder: Path) -> Path:
    torch.save({"x": X}, folder / "x.pt", _use_new_zipfile_serialization=False)
    return folder / "x.pt"


def torch_shards(folder: Path) -> Path:
    for number, piece in enumerate(X.split(250)):
        torch.save(piece.clone(), folder / f"x_part_{number}.pt")
    return folder


def saved_dataset(rows: Any, feature: Any = None) -> Any:
    datasets: Any = pytest.importorskip("datasets")
    features = datasets.Features({"x": feature}) if feature is not None else None
    return datasets.Dataset.from_dict({"x": rows}, features=features)


def dataset(folder: Path) -> Path:
    datasets: Any = pytest.importorskip("datasets")
    made = saved_dataset(list(BATCHED.numpy()), datasets.Array2D((LENGTH, D_IN), "float32"))
    made.save_to_disk(folder / "cache")
    return folder / "cache"


def dataset_of_lists(folder: Path) -> Path:
    saved_dataset(list(BATCHED.numpy())).save_to_disk(folder / "cache", num_shards=3)
    return folder / "cache"


def dataset_of_tokens(folder: Path) -> Path:
    saved_dataset(list(X.numpy())).save_to_disk(folder / "cache")
    return folder / "cache"


def dataset_dict(folder: Path) -> Path:
    datasets: Any = pytest.importorskip("datasets")
    datasets.DatasetDict(train=saved_dataset(list(BATCHED.numpy()))).save_to_disk(folder / "cache")
    return folder / "cache"


def write_parquet(path: Path, rows: Tensor, how: str) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    flat = pyarrow.array(rows.numpy().reshape(-1))
    columns = {
        "lists": lambda: {"x": pyarrow.array(list(rows.numpy())), "id": pyarrow.array(range(len(rows)))},
        "fixed": lambda: {"x": pyarrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])},
        "columns": lambda: {f"dim_{i}": pyarrow.array(rows[:, i].numpy()) for i in range(rows.shape[1])},
    }[how]()
    parquet.write_table(pyarrow.table(columns), path, row_group_size=70)


def parquet_file(folder: Path) -> Path:
    write_parquet(folder / "a.parquet", X, "lists")
    return folder / "a.parquet"


def parquet_folder(folder: Path) -> Path:
    for number, piece in enumerate(X.split(250)):
        write_parquet(folder / f"{number}.parquet", piece, "fixed")
    return folder


def bionemo(folder: Path, how: str = "lists") -> Path:
    pieces = X.split(250)
    for number, piece in enumerate(pieces):
        write_parquet(folder / f"shard_{number:05d}.parquet", piece, how)
    about = {"model_name": "evo2", "layer": "x", "hidden_dim": D_IN, "n_samples": TOKENS, "n_shards": len(pieces)}
    (folder / "metadata.json").write_text(json.dumps(about | {"shard_size": 250, "n_sequences": 40}))
    return folder


def bionemo_columns(folder: Path) -> Path:
    return bionemo(folder, "columns")


def saev(folder: Path) -> Path:
    layers = torch.stack([BATCHED + 1, BATCHED], dim=1)  # [examples, layers, tokens, d_model]
    shards = []
    for number, piece in enumerate(layers.split(15)):
        name = f"acts{number:06d}.bin"
        (folder / name).write_bytes(piece.contiguous().numpy().tobytes())
        shards.append({"name": name, "n_examples": len(piece)})
    about = {
        "family": "clip", "ckpt": "ViT-B-16", "layers": [3, "x"], "patches_per_ex": LENGTH - 1, "cls_token": True,
        "d_model": D_IN, "n_examples": SEQUENCES, "patches_per_shard": 225, "data": "gASVAA==", "dtype": "float32",
        "protocol": "2.1",
    }  # fmt: skip
    (folder / "metadata.json").write_text(json.dumps(about))
    (folder / "shards.json").write_text(json.dumps(shards))
    return folder


LAYOUTS: list[Callable[[Path], Path]] = [
    numpy_file, numpy_sequences, numpy_by_column, numpy_big_endian, numpy_archive, numpy_compressed, numpy_shards,
    archive_shards, safetensors_file, safetensors_sequences, safetensors_shards, harvest_folder, torch_tensor,
    torch_dict, torch_list, torch_strided, torch_old, torch_shards, dataset, dataset_of_lists, dataset_of_tokens,
    dataset_dict, parquet_file, parquet_folder, bionemo, bionemo_columns, saev,
]  # fmt: skip
"""Each writes the tokens `X` as layer `x` into an empty folder, and returns what is to be opened."""

WITH_SEQUENCES = [
    numpy_sequences, numpy_by_column, numpy_archive, safetensors_sequences, torch_tensor, dataset, dataset_of_lists,
    dataset_dict, saev,
]  # fmt: skip
"""Those of them that keep the sequences."""
