"""Stable Diffusion 3 and 3.5: the transformer that takes noise off latent images (Esser et al. 2024).

diffusers loads it: `pip install 'autopsae[diffusers]'`.
"""

import importlib
import zlib
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autopsae.activations.presets import check_weights, silent
from autopsae.activations.sources import one_line
from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.models.images import ImageNetwork
from autopsae.reading import read_object

PIPELINE = "StableDiffusion3Pipeline"
"""What `model_index.json` calls it."""
NOISE = 0.5
"""The share of noise in the latents that the transformer is given: half way from an image to noise."""
STEPS = 1000
"""Time steps from an image to noise: at share s the step is 1000 s."""


class LatentDiffusion(nn.Module):
    """One step of the denoising of an image without a text: encoded, mixed with noise, given to the transformer.

    The tokens of the image come in as `transformer.transformer_blocks.N:input`. What a block gives begins with the
    tokens of the text, which here are zeros.
    """

    def __init__(self, transformer: nn.Module, vae: nn.Module) -> None:
        """transformer: an `SD3Transformer2DModel`; vae: the `AutoencoderKL` of its latents."""
        super().__init__()
        self.transformer, self.vae = transformer, vae

    def forward(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch latent _ _"]:
        """What the transformer says is to be taken off: noise minus image."""
        latent: Any = self.vae.config
        mode: Tensor = self.vae.encode(pixel_values).latent_dist.mode()  # type: ignore[operator]
        latents = (mode - (latent.shift_factor or 0)) * latent.scaling_factor
        noised = (1 - NOISE) * latents + NOISE * _noise(pixel_values, latents)
        sizes: Any = self.transformer.config
        batch = len(latents)
        denoised: Tensor = self.transformer(
            hidden_states=noised,
            encoder_hidden_states=latents.new_zeros(batch, 1, sizes.joint_attention_dim),
            pooled_projections=latents.new_zeros(batch, sizes.pooled_projection_dim),
            timestep=torch.full((batch,), NOISE * STEPS, dtype=latents.dtype, device=latents.device),
            return_dict=False,
        )[0]
        return denoised


def _noise(pixels: Tensor, latents: Tensor) -> Tensor:
    """Noise that follows from each image's own pixels: the same in any batch and in every run."""
    rows = []
    for image in pixels:
        chance = torch.Generator().manual_seed(zlib.crc32(image.detach().cpu().float().numpy().tobytes()))
        rows.append(torch.randn(latents.shape[1:], generator=chance, dtype=torch.float32, device="cpu"))
    return torch.stack(rows).to(latents)


def is_diffusion(folder: Path) -> bool:
    """Whether a folder holds a pipeline of Stable Diffusion 3. Raises InputError where its index is no JSON."""
    path = folder / "model_index.json"
    return path.is_file() and read_object(path).get("_class_name") == PIPELINE


def load_diffusion(name: str, place: str, *, dtype: torch.dtype, device: torch.device | str) -> ImageNetwork:
    """The transformer and the encoder of the pipeline at `place`, a folder or a name of the Hub.

    The points are what enters the blocks after the first one. A token is a patch of 16 x 16 pixels; there are no
    others. Raises InputError for what cannot be loaded or lacks weights, and without diffusers.
    """
    try:
        diffusers = importlib.import_module("diffusers")
        transformers = importlib.import_module("transformers")
        with silent(transformers):
            classes = {"transformer": diffusers.SD3Transformer2DModel, "vae": diffusers.AutoencoderKL}
            settings = {"torch_dtype": dtype, "output_loading_info": True}
            loaded = {part: one.from_pretrained(place, subfolder=part, **settings) for part, one in classes.items()}
    except ImportError as error:
        raise package_error(name, "diffusers", error, install="autopsae[diffusers]") from error
    # A reader of damaged weights may raise anything; Ctrl-C is no Exception.
    except Exception as error:
        raise InputError(
            f"{name}: expected a pipeline of Stable Diffusion 3, but diffusers could not load it "
            f"({one_line(error)}); check the name and the connection, or pass the folder of a downloaded copy"
        ) from error
    for _, told in loaded.values():
        check_weights(name, told, ())
    parts = {part: module for part, (module, _) in loaded.items()}
    model = LatentDiffusion(**parts).to(device).eval()
    sizes, latent = parts["transformer"].config, parts["vae"].config
    return ImageNetwork(
        name,
        model,
        patch=sizes.patch_size * 2 ** (len(latent.block_out_channels) - 1),
        special=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        points=[f"transformer.transformer_blocks.{n}:input" for n in range(1, sizes.num_layers)],
    )
