"""Pictures with exact labels: stamps of Tux Paint (package tuxpaint-stamps-default) on photographs of nature.

A picture is a square of a photograph with one stamp on it. Its concepts are the folders of the stamp ("animals",
"animals/birds") on the patches that the stamp covers, and "stamp" on all of these. Every third stamp is measured
on.
"""

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from experiments.features.harvest import Documents
from numpy.typing import NDArray

from autopsae.features import mask_annotations

SIDE, PATCH = 224, 14
OPAQUE = 128


@cache
def stamps(data: Path) -> Documents:
    """Pictures to train on, of other stamps than those to measure on, each twice on other photographs."""
    train, test = _split(data)
    backgrounds = _photographs(data)
    chance = random.Random(0)
    measured = [_picture(path, backgrounds, chance) for path in test]
    masks = [
        dict.fromkeys(["stamp", *_names(path, data)], mask) for path, (_, mask) in zip(test, measured, strict=True)
    ]
    return Documents(
        train=[_picture(path, backgrounds, chance)[0] for path in [*train, *train]],
        test=[picture for picture, _ in measured],
        annotations=mask_annotations(masks, patches=SIDE // PATCH),
    )


def stamp_classes(data: Path) -> str:
    """{folder of the stamp: numbers of the pictures that are measured on}, as JSON."""
    classes: dict[str, list[int]] = {}
    for number, path in enumerate(_split(data)[1]):
        classes.setdefault(_names(path, data)[0], []).append(number)
    return json.dumps(classes)


def _split(data: Path) -> tuple[list[Path], list[Path]]:
    paths = sorted((data / "usr/share/tuxpaint/stamps").rglob("*.png"))
    paths = [path for path in paths if "symbols" not in path.parts]
    random.Random(0).shuffle(paths)
    test = paths[::3]
    return [path for path in paths if path not in test], test


def _names(path: Path, data: Path) -> list[str]:
    """The folders that a stamp is in, the widest first."""
    parts = path.relative_to(data / "usr/share/tuxpaint/stamps").parent.parts
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _photographs(data: Path) -> Sequence[NDArray[np.uint8]]:
    from PIL import Image

    paths = sorted((data / "usr/share/backgrounds/mate/nature").glob("*.jpg"))
    opened = [Image.open(path).convert("RGB") for path in paths]
    # Small enough to be held, and large enough that a square of them is only a part.
    return [np.asarray(image.resize((4 * SIDE, 3 * SIDE))) for image in opened]


def _picture(
    path: Path, backgrounds: Sequence[NDArray[np.uint8]], chance: random.Random
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(the picture, which of its pixels the stamp covers)."""
    from PIL import Image

    whole = chance.choice(backgrounds)
    top, left = (chance.randrange(length - SIDE) for length in whole.shape[:2])
    square = Image.fromarray(whole[top : top + SIDE, left : left + SIDE]).convert("RGBA")
    stamp = Image.open(path).convert("RGBA")
    size = chance.uniform(0.5, 0.9) * SIDE / max(stamp.size)
    stamp = stamp.resize((max(1, round(size * stamp.width)), max(1, round(size * stamp.height))))
    place = (chance.randrange(SIDE - stamp.width + 1), chance.randrange(SIDE - stamp.height + 1))
    above = Image.new("RGBA", square.size)
    above.paste(stamp, place)
    picture = np.asarray(Image.alpha_composite(square, above).convert("RGB"))
    return picture, np.asarray(above)[:, :, 3] >= OPAQUE
