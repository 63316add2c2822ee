"""The sparse autoencoder: weights, a sparsity, and the affine map under which it works. It takes raw tokens."""

from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autopsae.arrays import InputError
from autopsae.files import load_pair, save_pair
from autopsae.remedies.affine import Affine
from autopsae.sae.sparse_ops import Pairs, decode, encode
from autopsae.sae.sparsity import BatchTopK, Sparsity, TopK

FORMAT = "autopsae-sae"
_SPARSITIES: dict[str, type[Sparsity]] = {"topk": TopK, "batch_topk": BatchTopK}


class SAE(nn.Module):
    """x -> y = affine(x); codes z = selected, positive part of W_enc (y - b_dec) + b_enc; x_hat =
    affine^-1(z W_dec + b_dec) (paper Sec. 2, A.2).

    W_enc, W_dec: [d_sae, d_in], a row per latent; b_enc: [d_sae] or None; b_dec: [d_in], shared by both ends.
    `affine` maps raw activations to the space that the SAE works in (a scale; whitening where prescribed) and moves
    with the weights; `fold` makes it part of them.
    """

    center: Tensor
    linear: Tensor | None
    inverse: Tensor | None

    def __init__(
        self,
        *,
        W_enc: Float[Tensor, "d_sae d_in"],
        W_dec: Float[Tensor, "d_sae d_in"],
        b_dec: Float[Tensor, "d_in"],
        b_enc: Float[Tensor, "d_sae"] | None = None,
        sparsity: Sparsity,
        affine: Affine | None = None,
    ) -> None:
        super().__init__()
        sparsity.check(len(W_enc))
        self.W_enc, self.W_dec = nn.Parameter(W_enc.clone()), nn.Parameter(W_dec.clone())
        self.b_dec = nn.Parameter(b_dec.clone())
        self.b_enc = None if b_enc is None else nn.Parameter(b_enc.clone())
        self.sparsity: Sparsity = sparsity
        affine = affine or Affine.identity(W_enc.shape[1])
        self.scale = affine.scale
        self.register_buffer("center", affine.center.to(W_enc))
        self.register_buffer("linear", None if affine.linear is None else affine.linear.to(W_enc))
        self.register_buffer("inverse", None if affine.inverse is None else affine.inverse.to(W_enc))

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[0]

    @property
    def affine(self) -> Affine:
        """The map from raw activations to the space of the SAE."""
        return Affine(center=self.center, linear=self.linear, inverse=self.inverse, scale=self.scale)

    def pre_activations(self, y: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_sae"]:
        """W_enc (y - b_dec) + b_enc for tokens in the SAE's space."""
        pre = (y - self.b_dec) @ self.W_enc.T
        return pre if self.b_enc is None else pre + self.b_enc

    def select(self, y: Float[Tensor, "tokens d_in"]) -> tuple[Float[Tensor, "pairs"], Pairs, Tensor]:
        """(values, pairs, pre-activations [tokens, d_sae]) for tokens in the SAE's space.

        values: of the selected latents, zero where they are not positive, with gradients for the weights; the
        pre-activations carry none.
        """
        centered = (y - self.b_dec).detach()
        with torch.no_grad():
            pre = centered @ self.W_enc.T
            pre = pre if self.b_enc is None else pre.add_(self.b_enc)
            pairs = self.sparsity.select(pre)
            chosen = pre[pairs.tokens, pairs.latents]
        values = encode(chosen, centered, pairs, self.W_enc, self.b_enc, self.b_dec)
        return values.relu(), pairs, pre

    def reconstruct(self, values: Float[Tensor, "pairs"], pairs: Pairs) -> Float[Tensor, "tokens d_in"]:
        """z W_dec + b_dec, in the SAE's space."""
        return decode(values, pairs, self.W_dec) + self.b_dec

    def encode(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_sae"]:
        """Codes of raw tokens, as a dense matrix."""
        values, pairs, pre = self.select(self.affine(x.to(self.W_enc)))
        return torch.zeros_like(pre).index_put((pairs.tokens, pairs.latents), values)

    def decode(self, codes: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "tokens d_in"]:
        """Raw reconstructions of codes."""
        return self.affine.invert(codes @ self.W_dec + self.b_dec)

    def forward(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """Raw reconstructions of raw tokens."""
        values, pairs, _ = self.select(self.affine(x.to(self.W_enc)))
        return self.affine.invert(self.reconstruct(values, pairs))

    @torch.no_grad()
    def fold(self) -> "SAE":
        """The same codes and reconstructions from plain weights, the affine map multiplied into them."""
        s, A, inverse = self.scale, self.linear, self.inverse
        W_enc = s * self.W_enc if A is None else s * self.W_enc @ A
        W_dec = self.W_dec / s if inverse is None else self.W_dec @ inverse.T / s
        b_dec = self.affine.invert(self.b_dec[None])[0]
        return SAE(W_enc=W_enc, W_dec=W_dec, b_dec=b_dec, b_enc=self.b_enc, sparsity=self.sparsity)

    def save(self, path: str | Path) -> None:
        """Write `path`.json and `path`.safetensors, each whole or not at all."""
        name = next(name for name, kind in _SPARSITIES.items() if isinstance(self.sparsity, kind))
        content = {"sparsity": {"name": name, **asdict(self.sparsity)}, "scale": self.scale}
        content |= {"d_in": self.d_in, "d_sae": self.d_sae}
        save_pair(path, format=FORMAT, content=content, tensors=self.state_dict())

    @staticmethod
    def load(path: str | Path) -> "SAE":
        """Read what `save` wrote. Raises InputError as `load_pair`, and for weights that do not fit together."""
        content, tensors = load_pair(
            path,
            format=FORMAT,
            content=["sparsity", "scale", "d_in", "d_sae"],
            tensors=["W_enc", "W_dec", "b_dec", "center"],
        )
        settings = dict(content["sparsity"])
        affine = Affine(
            center=tensors.pop("center"),
            linear=tensors.pop("linear", None),
            inverse=tensors.pop("inverse", None),
            scale=content["scale"],
        )
        expected = (content["d_sae"], content["d_in"])
        if any(tuple(tensors[name].shape) != expected for name in ("W_enc", "W_dec")):
            raise InputError(f"{path}: expected weights of shape {expected}, got {tuple(tensors['W_enc'].shape)}")
        return SAE(**tensors, sparsity=_SPARSITIES[settings.pop("name")](**settings), affine=affine)
