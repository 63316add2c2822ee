"""What each library counts as a firing."""

import os

import pytest
import torch

from autopsae.sae.death import fates
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from tests.cure.cases import D_IN, D_SAE, MEDIAN, K, X


def two_alive() -> SAE:
    """Of 96 latents only two are ever positive, where k = 4 are selected."""
    b_enc = torch.full((D_SAE,), -1e4)
    b_enc[[5, 60]] = 1e4
    W = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(3)), dim=1)
    return SAE(W_enc=W, W_dec=W, b_enc=b_enc, b_dec=MEDIAN.float(), sparsity=TopK(k=K)).eval()


def test_dictionary_learning_counts_zeros_among_the_selected_as_firings() -> None:
    pytest.importorskip("dictionary_learning.trainers")
    from benchmarks.peers import top_k_trainer

    settings = {"steps": 2000, "activation_dim": D_IN, "dict_size": D_SAE, "k": K, "layer": 1, "lm_name": "none"}
    trainer, sae = top_k_trainer()(**settings, device="cpu"), two_alive()
    with torch.no_grad():
        trainer.ae.encoder.weight.copy_(sae.W_enc)
        trainer.ae.decoder.weight.copy_(sae.W_dec.T)
        trainer.ae.encoder.bias.copy_(sae.b_enc)
        trainer.ae.b_dec.copy_(sae.b_dec)
    trainer.num_tokens_since_fired += 10**6
    trainer.loss(X[:256], step=1)
    theirs = int((trainer.num_tokens_since_fired < 10**6).sum())
    assert int((fates(sae, X[:256]).fired > 0).sum()) == 2
    assert theirs >= K  # the surplus places of the k go to zeros


def test_sparsify_counts_zeros_among_the_selected_as_firings_and_saelens_does_not() -> None:
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    sparsify, sae = pytest.importorskip("sparsify"), two_alive()
    coder = sparsify.SparseCoder(D_IN, sparsify.SparseCoderConfig(num_latents=D_SAE, k=K))
    sae_lens = pytest.importorskip("sae_lens")
    config = sae_lens.TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K, rescale_acts_by_decoder_norm=False)
    theirs = sae_lens.TopKTrainingSAE(config)
    with torch.no_grad():
        coder.encoder.weight.copy_(sae.W_enc)
        coder.encoder.bias.copy_(sae.b_enc)
        coder.b_dec.copy_(sae.b_dec)
        theirs.W_enc.copy_(sae.W_enc.T)
        theirs.b_enc.copy_(sae.b_enc)
        theirs.b_dec.copy_(sae.b_dec)
    assert len(coder.encode(X[:256]).top_indices.unique()) >= K
    assert int((theirs.encode(X[:256]) != 0).any(dim=0).sum()) == 2
