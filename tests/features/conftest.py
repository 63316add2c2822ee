"""A folder in which the verb has something to work on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from autopsae.features.annotations import Annotations
from autopsae.features.labels import align_annotations
from autopsae.features.token_table import TokenTable
from tests.features.sources import DOCUMENTS, LENGTH, OF, small_sae, spans


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An SAE whose latent 7 fires where the concept "phrase" is, with tokens, annotations and a table of tokens."""
    monkeypatch.chdir(tmp_path)
    sae, annotations = small_sae(), Annotations.of(spans(LENGTH, DOCUMENTS), domains=["phrase"])
    annotations.save("a.csv")
    labels = align_annotations(annotations, OF)
    x = torch.randn(len(OF), 12, generator=torch.Generator().manual_seed(1))
    x[torch.from_numpy(labels.mask(labels.concepts.index("phrase")))] += 6 * sae.W_enc[7].detach()
    np.save("x.npy", x.view(DOCUMENTS, LENGTH, 12).numpy())
    sae.save("sae")
    small_sae(seed=4).save("other")
    place = np.tile(np.arange(LENGTH), DOCUMENTS)
    texts = tuple(f"{chr(97 + n)} " for n in place)
    np.save("a.npy", np.ones((19, 3), np.float32))
    TokenTable(documents=OF, starts=place, ends=place + 1, texts=texts).save("t.csv")
    return tmp_path
