"""Small sources with labels, for the tests of features."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autopsae import features
from autopsae.features.codes import CodeBlock, Codes
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK

LENGTH, DOCUMENTS = 25, 20
OF = np.repeat(np.arange(DOCUMENTS), LENGTH)
"""The document of each token of the sources of the verb."""


def codes_of(dense: NDArray[np.float64], documents: NDArray[np.int64] | None = None, block: int = 7) -> Codes:
    """The codes of a dense matrix [tokens, d_sae], in small blocks."""
    blocks = []
    for start in range(0, len(dense), block):
        rows = dense[start : start + block]
        token, latent = np.nonzero(rows > 0)
        blocks.append(
            CodeBlock(
                start=start,
                ends=np.append(0, np.cumsum((rows > 0).sum(axis=1))),
                latents=latent.astype(np.int32),
                values=rows[token, latent].astype(np.float32),
            )
        )
    return Codes(blocks=blocks, d_sae=dense.shape[1], documents=documents)


def sparse_matrix(tokens: int, d_sae: int, share: float = 0.2, seed: int = 0) -> NDArray[np.float64]:
    """Codes that float32 holds exactly, some equal."""
    chance = np.random.default_rng(seed)
    values = np.round(chance.gamma(2.0, 1.0, (tokens, d_sae)) * 16) / 16
    return np.where(chance.random((tokens, d_sae)) < share, values, 0.0)


def small_sae(d_in: int = 12, d_sae: int = 40, k: int = 5, seed: int = 0) -> SAE:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(d_sae, d_in, generator=generator, dtype=torch.float32, device="cpu")
    return SAE(W_enc=rows, W_dec=rows, b_dec=torch.zeros_like(rows[0]), sparsity=TopK(k=k)).eval()


def spans(tokens_of_document: int, documents: int, seed: int = 0) -> list[tuple[int, int, int, str]]:
    """Rows of three concepts: "word" on single tokens, "phrase" of spans that may overlap, "long" of long ones."""
    chance, rows = np.random.default_rng(seed), []
    for document in range(documents):
        for concept, number, longest in (("word", 4, 1), ("phrase", 3, 5), ("long", 1, tokens_of_document)):
            for _ in range(number):
                start = int(chance.integers(tokens_of_document))
                stop = min(tokens_of_document, start + int(chance.integers(1, longest + 1)))
                rows.append((document, start, stop, concept))
    return rows


def every_result(x: torch.Tensor, sae: SAE) -> list[Any]:
    """One of each result of the room, on tokens of documents of 25 tokens; SAE and tokens may be on any device."""
    documents = np.arange(len(x)) // 25
    names = documents[-1] + 1
    labels = features.align_annotations(features.Annotations.of(spans(25, names), domains=["phrase"]), documents)
    codes = features.encode_source(sae, x, documents=documents)
    coverage = features.concept_coverage(codes, labels)
    assert [*features.control_saes(sae, x, is_counted=documents > 0)] == ["neurons", "random rows"]
    random = features.random_sae(sae, 3)
    other = features.concept_coverage(features.encode_source(random, x, documents=documents), labels)
    place = np.arange(len(x)) % 25
    table = features.TokenTable(documents=documents, starts=place, ends=place + 1, texts=("<b>\n",) * len(x))
    is_test, task_labels = np.arange(names) % 2 == 0, np.arange(names) % 3 == 0
    pooled = features.pool_codes(codes)
    of = features.representations(pooled, features.pool_tokens(x, documents), is_test)
    made = [
        codes,
        *codes,
        labels,
        coverage,
        features.compare_coverages({"<b>\n": coverage, "random": other}),
        table,
    ]
    made += [features.Annotations.of([(0, 1, 2, "<b>\n")]), features.monosemanticity(codes, x)]
    made += [features.count_concepts(codes, labels, features.split_documents(documents))]
    made += [
        features.probe_coverage(codes, labels, coverage),
        features.fit_probes(of, task_labels, is_test, ks=(1,)),
    ]
    tops = features.top_activations(codes)
    made += [tops, tops.of_latent(int(tops.fired.argmax()), table)]
    neurons = features.encode_source(features.neuron_sae(x.mean(dim=0)), x)
    made += [features.probe_concepts({"<b>\n": codes}, x, labels, rows="tokens", ks=(1,))]
    task = features.ProbeTask(
        name="<b>\n", texts=("a", "b"), labels=np.array([True, False]), classes=("0", "1"), left_out=0
    )
    return [*made, *neurons, task]
