"""Laws of images: every file becomes the same square of the same colours, and what is no image is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autopsae.arrays import InputError
from autopsae.models import ImageNetwork, image_files, pictures_in
from autopsae.models.images import IMAGENET, ImagePiece, square
from autopsae.models.pictures import open_picture

Image = pytest.importorskip("PIL.Image", reason="needs the extra [images]")

RED, BLUE = (255, 0, 0), (0, 0, 255)


def network(**changed: Any) -> ImageNetwork:
    return ImageNetwork("tiny", nn.Linear(1, 1), **{"patch": 14, "special": 5, **changed})


def two_halves(width: int = 40, height: int = 20) -> Any:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def pixel(path: Path, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    colour: tuple[int, ...] = open_picture(path, "here").getpixel(at)
    return colour


# Networks


def test_an_image_gives_a_token_for_each_patch_and_those_of_its_own() -> None:
    assert network().size(None, 224) == 16 * 16 + 5
    assert network(patch=16, special=0).size(None, 32) == 4


def test_the_shorter_side_is_brought_to_the_context_and_the_middle_is_kept(tmp_path: Path) -> None:
    two_halves(80, 20).save(tmp_path / "a.png")
    pixels = square(ImagePiece(where="a", picture=tmp_path / "a.png"), 40)
    assert pixels.shape == (3, 40, 40)
    # The middle 20 columns, of which one half is red and the other blue.
    assert torch.equal(pixels[0, :, :18], torch.ones(40, 18))
    assert torch.equal(pixels[2, :, 22:], torch.ones(40, 18))


def test_a_strip_of_paper_is_scaled_in_little_memory(tmp_path: Path) -> None:
    Image.new("L", (60_000, 1), 128).save(tmp_path / "a.png")
    pixels = square(ImagePiece(where="a", picture=tmp_path / "a.png"), 224)
    assert torch.allclose(pixels, torch.full_like(pixels, 128 / 255))


def test_a_batch_is_normalised_as_the_network_says(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png")
    own = network(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.4), extra={"more": True}, patch=4)
    pieces = own.pieces(tmp_path / "a.png", "a", 8) + own.pieces(np.full((9, 9, 3), 51, np.uint8), "b", 8)
    batch = own.batch(pieces, 8)
    assert batch["more"] is True
    assert batch["pixel_values"].shape == (2, 3, 8, 8)
    left = torch.tensor([(1 - 0.5) / 0.1, (0 - 0.4) / 0.2, (0 - 0.3) / 0.4])
    assert torch.allclose(batch["pixel_values"][0, :, 0, 0], left)
    assert torch.allclose(batch["pixel_values"][1, :, 3, 3], torch.tensor([-3.0, -1.0, -0.25]), atol=1e-6)


def test_pixels_have_the_type_of_the_weights() -> None:
    half = ImageNetwork("tiny", nn.Linear(1, 1).bfloat16(), patch=14, special=1)
    pieces = half.pieces(np.zeros((5, 5, 3), np.uint8), "a", 14)
    assert half.batch(pieces, 14)["pixel_values"].dtype == torch.bfloat16
    assert IMAGENET[0] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (225, "context: expected a multiple of 14 pixels, the side of a patch of tiny, got 225; pass 224"),
        (13, "context: expected a multiple of 14 pixels, .* got 13; pass 14"),
        (0, "got 0; pass 14"),
    ],
)
def test_a_context_that_the_network_cannot_read_is_told(context: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network().pieces(np.zeros((5, 5, 3), np.uint8), "a", context)


# Files


def test_a_folder_gives_its_images_and_those_of_the_folders_within_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a.png", ".hidden/x.png", "b/._1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        two_halves().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    expected = [tmp_path / name for name in ("a.png", "b/1.JPG", "b/2.png")]
    assert image_files(tmp_path) == expected
    assert list(pictures_in(str(tmp_path))) == [(str(path), path) for path in expected]


def test_a_folder_without_images_a_file_and_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"expected images \(.bmp, .gif, .*\), got none; check the folder"):
        next(pictures_in(tmp_path))
    with pytest.raises(InputError, match=r"notes.txt: expected a folder with images, got a file; pass the folder"):
        next(pictures_in(tmp_path / "notes.txt"))
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        next(pictures_in(tmp_path / "nowhere"))


def test_every_mode_is_read_as_the_colours_it_shows(tmp_path: Path) -> None:
    grey = 153
    for mode, colour in {"L": grey, "1": 1, "CMYK": (0, 0, 0, 102), "LA": (grey, 255), "P": grey}.items():
        path = tmp_path / f"{mode}.tif" if mode == "CMYK" else tmp_path / f"{mode}.png"
        image = Image.new("L", (4, 4), grey).convert("P") if mode == "P" else Image.new(mode, (4, 4), colour)
        image.save(path)
        assert pixel(path) == ((255,) * 3 if mode == "1" else (grey,) * 3), mode
    Image.fromarray(np.full((4, 4), grey * 257, np.uint16)).save(tmp_path / "16.png")
    assert pixel(tmp_path / "16.png") == (grey,) * 3


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (*RED, 0))
    image.putpixel((1, 0), (*RED, 255))
    image.putpixel((2, 0), (*RED, 51))
    image.save(tmp_path / "a.png")
    assert [pixel(tmp_path / "a.png", (x, 0)) for x in range(3)] == [(255, 255, 255), RED, (255, 204, 204)]
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([*RED, *BLUE])
    palette.save(tmp_path / "b.png", transparency=0)
    assert pixel(tmp_path / "b.png") == (255, 255, 255)


def test_an_image_is_turned_as_its_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    two_halves().save(tmp_path / "a.png", exif=exif)
    assert pixel(tmp_path / "a.png") == BLUE


def test_the_first_picture_of_a_film_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), RED).save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), BLUE)]
    )
    assert pixel(tmp_path / "a.gif") == RED


def test_a_damaged_image_ends_with_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text.png: expected an image, could not read it \(UnidentifiedImageErr"):
        network().pieces(tmp_path / "text.png", str(tmp_path / "text.png"), 224)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    [piece] = network().pieces(tmp_path / "cut.png", "cut.png", 224)
    with pytest.raises(InputError, match=r"cut.png: expected an image, could not read it \(.*\); leave it out, or"):
        network().batch([piece], 224)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(InputError, match="empty: expected an image, could not read it"):
        network().pieces(tmp_path / "empty.png", "empty", 224)


def test_an_image_without_pixels_or_of_unknown_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: expected an image, .* bytes of shape \[height, width, 3\], got u"):
        network().pieces(np.zeros((0, 5, 3), np.uint8), "none", 224)
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(
        InputError, match=r"float: expected an image, .*pixels of mode 'F', whose range is not know"
    ):
        open_picture(tmp_path / "float.tif", "float")


def test_an_image_of_more_pixels_than_a_photograph_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_halves(40, 20).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 799)
    with pytest.raises(InputError, match=r"a: expected an image, could not read it \(DecompressionBombWarning"):
        network().pieces(tmp_path / "a.png", "a", 224)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    assert network().pieces(tmp_path / "a.png", "a", 224)


# CIFAR-10


def test_the_binary_files_of_cifar_10_give_their_pictures_in_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    for name, part in {"data_batch_1.bin": images[:2], "test_batch.bin": images[2:]}.items():
        records = [bytes([7]) + image.transpose(2, 0, 1).tobytes() for image in part]
        (tmp_path / name).write_bytes(b"".join(records))
    (tmp_path / "batches.meta.txt").write_text("airplane")
    pictures = list(pictures_in(tmp_path))
    assert [name.removeprefix(f"{tmp_path}/") for name, _ in pictures] == [
        "data_batch_1.bin: image 0",
        "data_batch_1.bin: image 1",
        "test_batch.bin: image 0",
        "test_batch.bin: image 1",
        "test_batch.bin: image 2",
    ]
    assert all(
        np.array_equal(np.asarray(picture), image) for (_, picture), image in zip(pictures, images, strict=True)
    )


def test_a_cut_file_of_cifar_10_and_its_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}q\x01")
    with pytest.raises(InputError, match=r"got CIFAR-10 as pickles, .*; take its binary version \(cifar-10-binary"):
        next(pictures_in(tmp_path))
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3072))
    with pytest.raises(
        InputError, match=r"data_batch_1.bin: expected CIFAR-10's .*3,072 bytes, no multiple of 3,073"
    ):
        next(pictures_in(tmp_path))
