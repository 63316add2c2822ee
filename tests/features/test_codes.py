"""Laws of sparse codes: they are those of the dense matrix, in every pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autopsae.activations.store import open_activations
from autopsae.arrays import InputError
from autopsae.features.codes import encode_source, gather_columns, maxima
from autopsae.features.rows import SomeTokens, select_codes
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, ReLU
from tests.features.sources import codes_of, small_sae, sparse_matrix

pytestmark = pytest.mark.quick


def test_codes_are_the_entries_of_encode_that_are_over_zero() -> None:
    sae, x = small_sae(), torch.randn(5000, 12)
    codes = encode_source(sae, [x[:1000], x[1000:]])
    dense = sae.encode(x).detach().numpy()
    for _ in range(2):  # every pass
        got = np.zeros_like(dense)
        for block in codes:
            assert (block.values > 0).all()
            got[block.tokens, block.latents] = block.values
        np.testing.assert_array_equal(got, dense)
    assert [len(block) for block in codes] == [2048, 2048, 904]
    assert str(codes.hold()) == "codes of 40 latents on an unknown number of tokens"


def test_a_learned_threshold_gives_codes_that_do_not_depend_on_where_batches_end() -> None:
    sae, x = small_sae(), torch.randn(3000, 12)
    parts: dict[str, Any] = {"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec, "sparsity": BatchTopK(k=5)}
    learned = type(sae)(**parts, threshold=torch.tensor(2.5)).eval()
    whole, cut = (encode_source(learned, tokens) for tokens in (x, [x[:7], x[7:2999], x[2999:]]))
    for one, two in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one.latents, two.latents)
        np.testing.assert_array_equal(one.values, two.values)
    alone = torch.cat([learned.encode(row[None]) for row in x[:50]]).detach().numpy()
    [block] = encode_source(learned, x[:50])
    assert block.values.tolist() == pytest.approx(alone[block.tokens, block.latents].tolist())
    assert len(block.values) == int((alone > 0).sum())
    with pytest.raises(
        InputError, match=r"got BatchTopK\(k=5\) without a threshold: its codes depend on which tokens"
    ):
        encode_source(type(sae)(**parts).eval(), x)


def test_some_tokens_are_the_rows_of_the_mask() -> None:
    dense, keep = sparse_matrix(50, 9), np.arange(50) % 3 == 1
    keep[:14] = False  # two whole blocks
    some = select_codes(codes_of(dense, np.arange(50) // 5), keep)
    got = np.zeros((int(keep.sum()), 9))
    for block in some:
        got[block.tokens, block.latents] = block.values
    np.testing.assert_array_equal(got, dense[keep])
    assert some.documents is not None
    np.testing.assert_array_equal(some.documents, (np.arange(50) // 5)[keep])
    x = torch.randn(50, 4)
    for _ in range(2):  # every pass
        assert torch.equal(torch.cat(list(SomeTokens([x[:20], x[20:]], keep))), x[torch.from_numpy(keep)])
    for wrong, got_tokens in ((49, "more"), (51, "50")):
        mask = np.ones(wrong, bool)
        message = f"expected a truth value per token, got {wrong} for {got_tokens} tokens"
        with pytest.raises(InputError, match=message):
            list(SomeTokens(x, mask))
        with pytest.raises(InputError, match=message):
            list(select_codes(codes_of(dense), mask))


def test_topk_of_a_token_without_positive_latents_gives_no_pair() -> None:
    sae = small_sae(d_in=2, d_sae=3, k=2)
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    [block] = encode_source(sae, torch.tensor([[2.0, -1.0], [0.0, -3.0], [0.0, 0.0]]))
    assert block.ends.tolist() == [0, 1, 1, 1]
    assert str(block) == "1 firing pairs of 3 tokens from token 0 on"


def test_maxima_and_columns_are_those_of_the_matrix() -> None:
    dense = sparse_matrix(50, 9)
    dense[:, 4] = 0
    codes = codes_of(dense)
    np.testing.assert_array_equal(maxima(codes), dense.max(axis=0).astype(np.float32))
    for latent, (tokens, values) in gather_columns(codes, np.array([4, 7, 2])).items():
        np.testing.assert_array_equal(tokens, np.flatnonzero(dense[:, latent]))
        np.testing.assert_array_equal(values, dense[tokens, latent])


def test_held_codes_are_the_same_and_encode_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = small_sae(), torch.randn(300, 12)
    fired = int((sae.encode(x) > 0).sum())
    held = encode_source(sae, x, documents=np.arange(300) // 10).hold()
    monkeypatch.setattr(type(sae), "select", None)
    assert [sum(len(block.values) for block in held) for _ in range(2)] == [fired, fired]
    assert str(held) == "codes of 40 latents on 300 tokens"


def test_documents_of_a_file_are_known_unless_tokens_were_left_out(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", torch.randn(6, 5, 12).numpy())
    source = open_activations(tmp_path / "x.npy")
    known = encode_source(small_sae(), source).documents
    assert known is not None
    assert known.tolist() == np.repeat(np.arange(6), 5).tolist()
    assert encode_source(small_sae(), source.take(10)).documents is None


@pytest.mark.parametrize(("scale", "is_held"), [(1.0, True), (1e-30, True), (1e-50, False), (1e45, False)])
def test_a_firing_code_that_float32_cannot_hold_is_refused_and_never_lost(scale: float, is_held: bool) -> None:
    rows = torch.eye(4, dtype=torch.float64)
    sae = SAE(W_enc=rows, W_dec=rows, b_dec=torch.zeros(4, dtype=torch.float64), sparsity=ReLU())
    codes = encode_source(sae, scale * torch.tensor([[0.0, -1.0, 2.0, 3.0]], dtype=torch.float64))
    if is_held:
        assert [block.latents.tolist() for block in codes] == [[2, 3]]
    else:
        with pytest.raises(
            InputError, match="expected codes that float32 can hold, got 2 of 2 that are 0 or infinite"
        ):
            list(codes)


def test_bad_sources_are_one_clear_line() -> None:
    sae, x = small_sae(), torch.randn(30, 12)
    with pytest.raises(InputError, match="expected tokens of d_in = 12, as the SAE's, got 5; choose the layer"):
        list(encode_source(sae, torch.randn(9, 5)))
    with pytest.raises(InputError, match="documents: expected a number for each of 30 tokens, got 29"):
        list(encode_source(sae, x, documents=np.arange(29)))
    with pytest.raises(InputError, match=r"documents: expected a whole number for each token, got float64"):
        encode_source(sae, x, documents=np.arange(30) / 2)
