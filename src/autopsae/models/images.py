"""Networks that read images: an image becomes a square of pixels, normalised as the network learned it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from autopsae.arrays import InputError
from autopsae.models.network import Network
from autopsae.models.pictures import Picture, open_picture

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the three channels over ImageNet, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class ImagePiece:
    """An image that is read when its batch is made: thousands of them decoded would fill the memory."""

    where: str
    """What messages call it."""
    picture: Picture
    """The file or the pixels."""


class ImageNetwork(Network):
    """A network that cuts a square image into patches, and reads these as tokens.

    The shorter side of an image becomes `context` pixels, and its middle square is taken. So every image gives the
    same number of tokens: the patches, the class token and the register tokens.
    """

    modality = "image"
    default_context = 224

    def __init__(
        self,
        name: str,
        model: nn.Module,
        *,
        patch: int,
        special: int,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        extra: dict[str, Any] | None = None,
        points: Sequence[str] = (),
    ) -> None:
        """patch: pixels of a patch's side; special: class and register tokens of an image; mean, std: of the three
        channels in [0, 1], by which the network expects an image to be normalised; extra: further arguments of its
        forward pass; points: see `Network`.
        """
        super().__init__(name, model, points=points)
        self.patch, self.special, self.extra = patch, special, dict(extra or {})
        self._mean, self._std = (torch.tensor(of, dtype=torch.float32, device="cpu") for of in (mean, std))

    def pieces(self, document: Any, where: str, context: int) -> list[Any]:
        """The image itself, of which the header is looked at; that its rest is whole is seen by `batch`.

        document: a file, or bytes [height, width, 3]. Raises InputError for
        what is no image, for one without pixels, and for a context that is no multiple of the patch's side.
        """
        self._check_context(context)
        image = open_picture(document, where, whole=False)
        if not min(image.size):
            raise InputError(f"{where}: expected an image, got one of {image.width} x {image.height} pixels")
        return [ImagePiece(where=where, picture=document)]

    def size(self, piece: Any, context: int) -> int:
        """Patches, and class and register tokens: the same for every image."""
        return (context // self.patch) ** 2 + self.special

    def batch(self, pieces: Sequence[Any], context: int) -> dict[str, Any]:
        """{"pixel_values": [images, 3, context, context]} in the type of the network's weights.

        Raises InputError for an image that is damaged, naming it.
        """
        pixels = torch.stack([square(piece, context) for piece in pieces])
        dtype = next((w.dtype for w in self.model.parameters() if w.is_floating_point()), torch.float32)
        normal = (pixels - self._mean[:, None, None]) / self._std[:, None, None]
        return {"pixel_values": normal.to(dtype), **self.extra}

    def _check_context(self, context: int) -> None:
        if context < self.patch or context % self.patch:
            near = max(1, round(context / self.patch)) * self.patch
            raise InputError(
                f"context: expected a multiple of {self.patch} pixels, the side of a patch of {self.name}, got "
                f"{context}; pass {near}"
            )


def square(piece: ImagePiece, side: int) -> Float[Tensor, "3 side side"]:
    """The middle square of an image at `side` pixels (bicubic), in [0, 1]. Raises InputError as `open_picture`."""
    image = open_picture(piece.picture, piece.where)
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    # In one step: first to scale a long strip of paper would make it millions of pixels long.
    resized = image.resize((side, side), resample=3, box=(left, top, left + short, top + short))  # 3: bicubic
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
