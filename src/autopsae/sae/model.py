"""The sparse autoencoder (SAE): its weights, its sparsity, and the affine map from raw tokens to its space."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autopsae.ambient import matmul, outside_inference_mode
from autopsae.arrays import InputError
from autopsae.kernels.screen import Products
from autopsae.kernels.sparse_ops import decode
from autopsae.remedies.affine import Affine
from autopsae.sae.parts import check_parts
from autopsae.sae.selection import Selection
from autopsae.sae.sparsity import Sparsity
from autopsae.sae.stored import FORMAT, read_parts
from autopsae.sae.weights import PARAMETERS, Weights
from autopsae.saved import save_pair
from autopsae.statistics.moments import layer_norm
from autopsae.tables import brief, html_table

Back = Callable[[Float[Tensor, "tokens d_in"]], Float[Tensor, "tokens d_in"]]


class SAE(nn.Module):
    """A sparse autoencoder. `encode` has its definition (paper Sec. 2, A.2); `sae(x)` reconstructs raw tokens.

    W_enc, W_dec: [d_sae, d_in], a row for each latent. b_dec: [d_in], subtracted before the encoder and added
    after the decoder. b_enc: [d_sae]. threshold: [d_sae] for JumpReLU, one value for a BatchTopK that has one.
    affine: from raw tokens to the SAE's space; `fold` puts it into the weights. layer_norm: it cannot be folded.
    """

    center: Tensor
    """[d_in]: what `affine` subtracts from raw tokens."""
    b_pre: Tensor | None
    """[d_in]: subtracted before the encoder in place of b_dec; None in most SAEs (`fix_encoder_center`)."""
    linear: Tensor | None
    """[d_in, d_in]: by which `affine` multiplies; None for the identity."""
    inverse: Tensor | None
    """[d_in, d_in]: its inverse; None for the identity."""

    @outside_inference_mode()
    def __init__(
        self,
        *,
        W_enc: Float[Tensor, "d_sae d_in"],
        W_dec: Float[Tensor, "d_sae d_in"],
        b_dec: Float[Tensor, "d_in"],
        b_enc: Float[Tensor, "d_sae"] | None = None,
        b_pre: Float[Tensor, "d_in"] | None = None,
        sparsity: Sparsity,
        threshold: Float[Tensor, "..."] | None = None,
        affine: Affine | None = None,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        parts = {"W_enc": W_enc, "W_dec": W_dec, "b_dec": b_dec, "b_enc": b_enc, "b_pre": b_pre}
        check_parts({**parts, "threshold": threshold}, affine)
        sparsity.check(len(W_enc))
        self.W_enc, self.W_dec = nn.Parameter(W_enc.clone()), nn.Parameter(W_dec.clone())
        self.b_dec = nn.Parameter(b_dec.clone())
        self.b_enc = None if b_enc is None else nn.Parameter(b_enc.clone())
        self.register_buffer("b_pre", None if b_pre is None else b_pre.detach().clone())
        self.sparsity: Sparsity = sparsity
        begun = sparsity.tensors_at_birth(self.W_enc.detach(), threshold)
        self._owned = tuple(begun)
        for name, tensor in begun.items():
            if name in sparsity.learned_by_gradient:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        affine = affine or Affine.identity(W_enc.shape[1])
        self.scale, self.layer_norm = affine.scale, layer_norm
        self.register_buffer("center", affine.center.to(W_enc))
        self.register_buffer("linear", None if affine.linear is None else affine.linear.to(W_enc))
        self.register_buffer("inverse", None if affine.inverse is None else affine.inverse.to(W_enc))

    def __repr__(self) -> str:
        norm = ", layer_norm=True" if self.layer_norm else ""
        shape = f"d_in={self.d_in}, d_sae={self.d_sae}, sparsity={self.sparsity}, scale={self.scale:.4g}"
        return f"SAE({shape}{norm}, dtype={self.W_enc.dtype}, device={self.W_enc.device})"

    def __str__(self) -> str:
        threshold = self.threshold
        learned = "" if threshold is None or threshold.ndim else f", learned threshold {float(threshold):.4g}"
        return f"an SAE of {self.d_sae:,} latents on {self.d_in:,} dimensions, {self.sparsity}{learned}"

    def _repr_html_(self) -> str:
        rows = [[name, f"{brief(tensor)} {tensor.dtype}"] for name, tensor in self.state_dict().items()]
        return html_table(["tensor", "shape and type"], rows, [str(self), f"scale {self.scale:.4g}"])

    @property
    def d_in(self) -> int:
        """Dimensions of a token."""
        return self.W_enc.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_enc.shape[0]

    @property
    def weights(self) -> Weights:
        """The weights as a stack of one SAE. They share memory and gradients with this SAE."""
        named = {name: getattr(self, name) for name in (*PARAMETERS, "b_pre")}
        parts = {name: None if tensor is None else tensor[None] for name, tensor in named.items()}
        owned = {name: tensor[None] for name, tensor in self.owned.items()}
        return Weights(**parts, owned=owned, sparsity=self.sparsity)  # type: ignore[arg-type]

    @property
    def encoder_center(self) -> Float[Tensor, "d_in"]:
        """What is subtracted before the encoder: b_pre, or b_dec where there is no b_pre."""
        return self.b_dec if self.b_pre is None else self.b_pre

    def fix_encoder_center(self) -> None:
        """Set b_pre, if there is none, to the present b_dec: what b_dec becomes then changes no code."""
        self.b_pre = self.encoder_center.detach().clone()

    @property
    def owned(self) -> dict[str, Tensor]:
        """The tensors that the sparsity adds, by name."""
        return {name: getattr(self, name) for name in self._owned}

    @property
    def affine(self) -> Affine:
        """The map from raw activations to the space of the SAE."""
        return Affine(center=self.center, linear=self.linear, inverse=self.inverse, scale=self.scale)

    @property
    def threshold(self) -> Float[Tensor, "..."] | None:
        """JumpReLU: [d_sae]. BatchTopK: a single value once it is learned. Else None."""
        return self.sparsity.threshold(self.owned)

    def not_finite(self) -> list[str]:
        """The names of the weights that have NaN or infinite values."""
        # BatchTopK's threshold is NaN until it is learned.
        unset = {name for name, layout in self.sparsity.layouts(self.d_sae, ()).items() if not layout.finite}
        named = {name: tensor for name, tensor in self.state_dict().items() if name not in unset}
        return [name for name, tensor in named.items() if not bool(tensor.isfinite().all())]

    def check_finite(self, who: str) -> None:
        """Raises InputError if a weight is NaN or infinite. who: the first word of the message."""
        if bad := self.not_finite():
            raise InputError(
                f"{who}: expected an SAE of finite weights, got NaN or infinite values in {', '.join(bad)}; load "
                "the last good checkpoint"
            )

    def enter(self, x: Float[Tensor, "tokens d_in"]) -> tuple[Float[Tensor, "tokens d_in"], Back]:
        """(y, back): the tokens in the SAE's space, and the function that maps their reconstructions back to raw
        space.
        """
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise InputError(f"SAE: expected tokens [tokens, d_in = {self.d_in}], got {[*x.shape]}; flatten them")
        x = x.to(self.W_enc)
        if not self.layer_norm:
            return self.affine(x), self.affine.invert
        mean, std = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True, unbiased=False)
        return self.affine(layer_norm(x)), lambda y: self.affine.invert(y) * std + mean

    def pre_activations(self, y: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_sae"]:
        """W_enc (y - b_dec) + b_enc for tokens in the SAE's space, with b_pre in place of b_dec if there is one."""
        pre = matmul(y - self.encoder_center, self.W_enc.T)
        return pre if self.b_enc is None else pre + self.b_enc

    def select(self, y: Float[Tensor, "tokens d_in"], *, products: Products = "auto") -> Selection:
        """The selected latents and their codes for tokens in the SAE's space.

        products: the type of the products that find the candidates: "float32", "bfloat16", "int8", or "auto" for
        the fastest that the processor has. The codes do not depend on it: they are computed from exact values, in
        the type of the weights.
        """
        return replace(self.weights, products=products).select(y[None], training=self.training)[0]

    def learn(self, selection: Selection) -> None:
        """Update what the sparsity learns without a gradient (BatchTopK's threshold) from a training batch.

        `Training` does this itself. If you write a training loop of your own, call it once for each batch.
        """
        self.weights.learn(selection)

    def reconstruct(self, selection: Selection) -> Float[Tensor, "tokens d_in"]:
        """z W_dec + b_dec: the reconstruction in the SAE's space."""
        return decode(selection.values, selection.pairs, self.W_dec[None]) + self.b_dec

    def encode(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_sae"]:
        """The codes z of raw tokens x, as a dense matrix. An SAE is defined by four lines.

            y     = affine(x)                        [tokens, d_in]   the tokens in the SAE's space
            pre   = (y - b_dec) W_enc^T + b_enc      [tokens, d_sae]  the pre-activations
            z     = where(selected, relu(pre), 0)    [tokens, d_sae]  the codes; `sparsity` selects
            x_hat = affine^-1(z W_dec + b_dec)       [tokens, d_in]   the reconstruction, by `decode`

        The second line subtracts b_pre instead, if there is one. With layer_norm, x is normalised before the first
        line, and x_hat is mapped back after the last.
        """
        selection = self.select(self.enter(x)[0])
        return selection.pairs.matrix(selection.values)

    def decode(self, codes: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, "tokens d_in"]:
        """affine^-1(z W_dec + b_dec): the reconstructions of codes in raw space.

        Raises InputError for an SAE with layer_norm: the way back needs the mean and the norm of each token.
        """
        if self.layer_norm:
            raise InputError(
                "decode: expected an SAE without layer_norm, got one; it needs each token's norm, so call sae(x)"
            )
        return self.affine.invert(matmul(codes, self.W_dec) + self.b_dec)

    def forward(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """The reconstructions of raw tokens, in raw space."""
        y, back = self.enter(x)
        return back(self.reconstruct(self.select(y)))

    @torch.no_grad()
    def bias_captured(self, mean: Float[Tensor, "d_in"]) -> float:
        """The share of the tokens' mean that `b_dec` has reached: b . mu / ||mu||^2 in raw space, or in the space
        of normalised tokens with layer_norm. 1 if the mean is zero. mean: of the tokens in the SAE's space.
        """
        # With a whitening matrix, compute in its type: to convert the matrix at every step would be slow.
        exact = mean if self.inverse is None else mean.to(self.b_dec)
        mu, b = self.affine.invert(torch.stack([exact, self.b_dec.to(exact)])).double()
        square = float(mu @ mu)
        return float(b @ mu) / square if square > 0 else 1.0

    @torch.no_grad()
    def fold(self) -> "SAE":
        """An SAE with the identity as its affine map that gives the same codes and reconstructions: the map is
        multiplied into the weights, and W_enc (b_dec - b_pre) is added to b_enc where there is a b_pre.

        Raises InputError for an SAE with layer_norm.
        """
        if self.layer_norm:
            raise InputError(
                "fold: expected an affine SAE, got layer_norm = True; no weights divide by a token's norm"
            )
        s, A, inverse = self.scale, self.linear, self.inverse
        # What b_enc has to be where the encoder subtracts b_dec: the pre-activations of b_dec itself.
        b_enc: Tensor | None = self.b_enc if self.b_pre is None else self.pre_activations(self.b_dec[None])[0]
        return SAE(
            W_enc=s * self.W_enc if A is None else s * self.W_enc @ A,
            W_dec=self.W_dec / s if inverse is None else self.W_dec @ inverse.T / s,
            b_dec=self.affine.invert(self.b_dec[None])[0],
            b_enc=b_enc,
            sparsity=self.sparsity,
            threshold=self.threshold,
        ).train(self.training)

    def save(self, path: str | Path) -> None:
        """Write `path`.json and `path`.safetensors, each whole or not at all."""
        content = {"sparsity": self.sparsity.to_dict(), "scale": self.scale, "layer_norm": self.layer_norm}
        shape = {"d_in": self.d_in, "d_sae": self.d_sae}
        save_pair(path, format=FORMAT, content={**content, **shape}, tensors=self.state_dict())

    @staticmethod
    def load(path: str | Path) -> "SAE":
        """Read an SAE that `save` wrote. It is in evaluation mode.

        Raises InputError for files that are missing, damaged or not from `save`; for an unknown sparsity, or one
        that d_sae does not allow; for a scale that is not positive; for a tensor of another name, type or shape, or
        with NaN or infinite values; and for a whitening map whose stored inverse does not undo it.
        """
        content, tensors, sparsity = read_parts(path)
        maps = {name: tensors.get(name) for name in ("center", "linear", "inverse")}
        sae = SAE(
            **{name: tensors.get(name) for name in (*PARAMETERS, "b_pre")},  # type: ignore[arg-type]
            sparsity=sparsity,
            # Any value: it is overwritten.
            threshold=torch.ones((), dtype=torch.float32, device="cpu") if sparsity.layouts(1, ()) else None,
            affine=Affine(**maps, scale=float(content["scale"])),  # type: ignore[arg-type]
            layer_norm=content["layer_norm"],
        )
        sae.load_state_dict(tensors)
        return sae.eval()
