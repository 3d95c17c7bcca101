"""How bytes become RGB: modes, depths, transparency, orientation, what is refused."""

from __future__ import annotations

import errno
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from milanx.images.decoding import (
    MAX_PIXELS,
    RANGES,
    decode,
    is_fault,
    is_image,
    suffixes,
    to_eight_bits,
    why,
)
from tests.helpers import noise, png

SCENE = noise(1, side=64, seed=4)[0]
GREY = np.asarray(SCENE.convert("L"))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def off(content: bytes, wanted: np.ndarray) -> float:
    """Mean distance, in levels, of a decoded picture from the one that was encoded."""
    found = np.asarray(decode(content))
    if wanted.ndim == 2:
        wanted = np.repeat(wanted[..., None], 3, 2)
    assert found.shape == wanted.shape
    return float(np.abs(found.astype(float) - wanted).mean())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
def test_what_an_opaque_picture_shows_does_not_depend_on_its_mode(mode: str, kind: str) -> None:
    picture = SCENE.convert("P").convert("PA") if mode == "PA" else SCENE.convert(mode)
    try:
        content = saved(picture, kind)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"{kind} has no {mode}")
    wanted = SCENE.convert("1").convert("RGB") if mode == "1" else SCENE
    if mode in ("L", "LA"):
        wanted = SCENE.convert("L").convert("RGB")
    few_colours = mode in ("P", "PA") or kind == "GIF"
    limit = 60 if (kind, mode) == ("JPEG", "1") else 25 if few_colours else 8
    assert off(content, np.asarray(wanted)) < limit


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    "values",
    [
        GREY.astype(np.uint16) * 257, GREY.astype(np.uint16) * 16, GREY.astype(np.int32) * 257,
        GREY.astype(">u2") * 257, GREY.astype(np.float32) / 255, GREY.astype(np.float32),
        GREY.astype(np.float32) * 257, GREY.astype(np.uint16), GREY.astype(np.float32) * 1e7,
        GREY.astype(np.int32) * 90_000,
    ],
    ids=["u16", "12 in 16", "i32", "big-endian", "0..1", "0..255", "0..65535", "8 in 16", "large",
         "i32 large"],
)  # fmt: skip
def test_more_than_eight_bits_are_scaled_to_what_they_show(values: np.ndarray, kind: str) -> None:
    image = Image.fromarray(values)
    if kind == "PNG" and not image.mode.startswith("I;16"):
        pytest.skip(f"PNG has no {image.mode}")
    content = saved(image, kind)
    assert off(content, GREY * (255 / GREY.max() if values.max() > 65535 else 1)) < 1.5


def test_the_rule_of_ranges() -> None:
    """Twice as bright is twice as bright, and no picture is lost in the darkest sixteenth."""
    for end in RANGES:
        ramp = np.linspace(0, end, 256, dtype=np.float64)[None]
        assert np.array_equal(to_eight_bits(ramp)[0], np.arange(256))
        dim = to_eight_bits(np.array([[0.0, end / 4]]))
        assert dim.max() == 64, end
    assert to_eight_bits(np.array([[0, 3]], np.uint16)).max() == 255
    assert to_eight_bits(np.array([[-100.0, 0.0, 100.0]])).tolist() == [[0, 128, 255]]
    assert to_eight_bits(np.array([[0.0, 1.3]])).tolist() == [[0, 255]]
    odd = np.array([[np.nan, np.inf, -np.inf, 0.5, 1.0]], np.float32)
    assert to_eight_bits(odd).tolist() == [[0, 255, 0, 128, 255]]
    assert not to_eight_bits(np.zeros((2, 2), np.int32)).any()
    with pytest.raises(ValueError, match="finite"):
        to_eight_bits(np.full((2, 2), np.nan))


@pytest.mark.parametrize("hidden", ["noise", "black"])
def test_what_is_transparent_is_white_whatever_lies_under_it(hidden: str) -> None:
    pixels = np.asarray(SCENE).copy()
    alpha = np.zeros(GREY.shape, np.uint8)
    alpha[:20], alpha[20:40] = 255, 128
    under = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    pixels[40:] = under[40:] if hidden == "noise" else 0
    found = np.asarray(decode(saved(Image.fromarray(np.dstack([pixels, alpha])), "PNG")))
    assert np.array_equal(found[:20], pixels[:20])
    assert (found[40:] == 255).all()
    half = (pixels[20:40] * 128.0 + 255.0 * 127) / 255
    assert np.abs(found[20:40] - half).max() <= 1


def test_other_ways_to_be_transparent() -> None:
    grey = np.full((8, 8), 50, np.uint8)
    grey[:4] = 200
    la = Image.merge(
        "LA", [Image.fromarray(grey), Image.fromarray((grey < 100).astype("u1") * 255)]
    )
    palette = Image.fromarray(grey).convert("P")
    for content in (
        saved(la, "PNG"),
        saved(Image.fromarray(grey), "PNG", transparency=200),
        saved(Image.fromarray(grey.astype(np.uint16) * 257), "PNG", transparency=200 * 257),
        saved(palette, "PNG", transparency=palette.getpixel((0, 0))),
        saved(palette, "GIF", transparency=palette.getpixel((0, 0))),
    ):
        found = np.asarray(decode(content))
        assert (found[:4] == 255).all()
        assert np.abs(found[4:].astype(int) - 50).max() <= 1


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(turn: int, kind: str) -> None:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:8, :16] = 255
    seen = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    image = decode(saved(Image.fromarray(pixels), kind, exif=exif))
    assert image.size == ((48, 32) if turn < 5 else (32, 48))
    found = np.asarray(image)
    corner = found[0 if seen[0] == "t" else -1, 0 if seen[1] == "l" else -1]
    assert corner.min() > 200


def test_damaged_exif_spoils_no_picture() -> None:
    content = saved(SCENE, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff garbage")
    assert decode(content).size == SCENE.size


def test_the_first_of_several_frames_is_taken() -> None:
    others = [Image.new("RGB", SCENE.size)] * 3
    content = saved(SCENE, "GIF", save_all=True, append_images=others)
    assert off(content, np.asarray(SCENE)) < 25


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says that it has many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))  # fmt: skip

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
            + chunk(b"IEND", b""))  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(MAX_PIXELS // 1024 + 1, 1024), (60_000, 60_000)])
def test_bombs_are_refused_before_they_go_off(size: tuple[int, int]) -> None:
    with pytest.raises(Image.DecompressionBombError) as caught:
        decode(bomb(*size))
    assert why(caught.value) == "it has more than 134 million pixels"
    assert not is_fault(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_part_of_a_file_is_an_error_that_is_said(kind: str, share: float) -> None:
    whole = saved(noise(1, side=200, seed=9)[0], kind)
    with pytest.raises(Exception) as caught:
        decode(whole[: int(len(whole) * share)])
    assert why(caught.value).strip()
    assert not is_fault(caught.value)


def test_nothing_but_pictures_is_opened() -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for content in (b"hello", b"", program, bytes(range(256)) * 40, b"\x00" * 5000):
        with pytest.raises(Exception) as caught:
            decode(content)
        assert why(caught.value) == "it is no image that can be read"


def test_faults_of_the_machine_are_told_from_those_of_an_image() -> None:
    for number in (errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOENT):
        error = OSError(number, "x")
        assert is_fault(error)
        assert why(error)
        assert "Errno" not in why(error)
    assert is_fault(MemoryError())
    assert not is_fault(OSError("image file is truncated"))
    assert why(ValueError()) == "ValueError"


def test_files_are_told_by_suffix_or_by_how_they_begin(tmp_path: Path) -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"} <= suffixes()
    assert not {".eps", ".pdf", ".mpg", ".txt", ""} & suffixes()
    files = {"a.JPG": b"text", "b": png(SCENE), "c.jpg_large": png(SCENE, "JPEG"),
             "d.txt": b"text", "e": b"", "f.npy": bytes(2000), "g.py": b"import os\n"}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert [n for n in files if is_image(str(tmp_path / n))] == ["a.JPG", "b", "c.jpg_large"]
