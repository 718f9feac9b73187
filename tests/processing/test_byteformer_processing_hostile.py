"""Inputs that lie, grow or are damaged: ByteFormer's processors answer each with one line, in bounded memory."""

import io
import json
import random
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hubtools.packages import ROOT
from PIL import Image

from byteformer import ByteFormerFeatureExtractor, ByteFormerImageProcessor
from byteformer.feature_extraction_byteformer import MAX_SOUND_FILE, check_resampling, encode_wav
from byteformer.image_processing_byteformer import MAX_BYTES, open_picture

MOST_MEMORY = 1.5e9

# Runs every case in one process and prints its error and the process's peak memory so far, as a line of JSON each.
RUNNER = """
import json, resource, sys, warnings
import numpy as np, torch
from pathlib import Path
from PIL import Image
sys.path[:0] = [{root!r}, {tests!r}]
import byteformer.feature_extraction_byteformer as sounds
import byteformer.image_processing_byteformer as pictures
from test_byteformer_processing_hostile import CASES
warnings.simplefilter("ignore")
for name, (case, _) in CASES.items():
    try:
        case(Path({folder!r}), pictures, sounds)
        error = None
    except ValueError as caught:
        error = str(caught)
    print(json.dumps([name, error, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]), flush=True)
"""


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, data=b""):
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def opened(content):
    """A picture in the hands of someone who has switched Pillow's own guard off."""
    Image.MAX_IMAGE_PIXELS = None
    return Image.open(io.BytesIO(content))


def written(path, content):
    path.write_bytes(content)
    return path


def gigabyte(folder):
    path = folder / "gigabyte"
    with path.open("wb") as file:
        file.truncate(2**30)
    return path


def endless_gif(folder):
    """Two pixels, then the same frame until the file stops within one."""
    buffer = io.BytesIO()
    Image.new("P", (2, 1)).save(buffer, "GIF")
    whole = buffer.getvalue()
    palette_end = 13 + 3 * 2 ** (1 + (whole[10] & 7))
    frame = whole[palette_end:-1]
    return written(folder / "endless.gif", whole[:-1] + frame * 100000 + frame[:5])


CASES = {
    "60,000 x 60,000 pixels, opened by the user": (
        lambda f, p, s: p.ByteFormerImageProcessor()(opened(png(60000, 60000))),
        "60000 x 60000 pixels",
    ),
    "60,000 x 60,000 pixels, as a path": (
        lambda f, p, s: p.open_picture(written(f / "large.png", png(60000, 60000))),
        "60000 x 60000|3600000000 pixels",
    ),
    "60,000 x 2,000 pixels without data": (
        lambda f, p, s: p.open_picture(written(f / "wide.png", png(60000, 2000))),
        "cannot be decoded",
    ),
    "1 x 60,000 pixels": (
        lambda f, p, s: p.ByteFormerImageProcessor()(Image.new("RGB", (1, 60000))),
        "256 x 15360000 pixels",
    ),
    "60,000 x 1 pixels": (
        lambda f, p, s: p.ByteFormerImageProcessor()(np.zeros((1, 60000, 3), np.uint8)),
        "15360000 x 256 pixels",
    ),
    "tall before its width grows": (
        lambda f, p, s: p.ByteFormerImageProcessor(size=(100, 11000))(Image.new("L", (1, 60000))),
        "resized in its width, has 11000 x 60000",
    ),
    "an array of 2**28 pixels": (
        lambda f, p, s: p.ByteFormerImageProcessor()(np.broadcast_to(np.uint8(0), (2**14, 2**14, 3))),
        "16384 x 16384 pixels",
    ),
    "nothing cut": (
        lambda f, p, s: p.ByteFormerImageProcessor(do_resize=False, do_center_crop=False)(Image.new("L", (8000, 8000))),
        "8000 x 8000 pixels",
    ),
    "raw pixels beyond any model": (
        lambda f, p, s: p.ByteFormerImageProcessor(do_resize=False, do_center_crop=False, file_encoding="fHWC")(
            Image.new("L", (4000, 4000))
        ),
        "image as fHWC has 48,000,000 bytes; accepted: at most 33,554,432",
    ),
    "an endless GIF": (lambda f, p, s: p.open_picture(endless_gif(f)), None),
    "a gigabyte as a path": (
        lambda f, p, s: p.ByteFormerImageProcessor()(gigabyte(f)),
        "has 1,073,741,824 bytes; accepted: at most 33,554,432",
    ),
    "a gigabyte to decode": (
        lambda f, p, s: p.open_picture(gigabyte(f)),
        "has 1,073,741,824 bytes; accepted: at most 536,870,912",
    ),
    "a gigabyte of bytes": (
        lambda f, p, s: p.ByteFormerImageProcessor()(bytes(2**30)),
        "the bytes object has 1,073,741,824 bytes",
    ),
    "one long row among many short": (
        lambda f, p, s: p.ByteFormerImageProcessor()([bytes(2**25)] + [b"a"] * 500),
        "mostly padding; split it",
    ),
    "a window of 500,000,000": (
        lambda f, p, s: p.reorder_bytes(np.zeros(10, np.uint8), "window_shuffle", window=5 * 10**8).sum() and None,
        None,
    ),
    "an endless text for a path": (
        lambda f, p, s: p.ByteFormerImageProcessor()("\x1b[2J\u202e" * 10**6),
        "no such file: ",
    ),
    "a folder": (lambda f, p, s: p.ByteFormerImageProcessor()(f), "no such file"),
    "a device": (lambda f, p, s: p.ByteFormerImageProcessor()("/dev/zero"), "no such file: '/dev/zero'"),
    "a sparse tensor": (
        lambda f, p, s: p.ByteFormerImageProcessor()(torch.zeros(3, 4, 4).to_sparse()),
        "sparse_coo tensor; accepted: dense",
    ),
    "a meta tensor": (
        lambda f, p, s: p.ByteFormerImageProcessor()(torch.zeros(3, 4, 4, device="meta")),
        "a meta tensor",
    ),
    "a quantised tensor": (
        lambda f, p, s: p.ByteFormerImageProcessor()(
            torch.quantize_per_tensor(torch.rand(3, 4, 4), 0.1, 0, torch.quint8)
        ),
        "a quantised tensor",
    ),
    "numbers that are none": (
        lambda f, p, s: p.ByteFormerImageProcessor()(torch.full((3, 4, 4), float("nan"))),
        "got nan to nan",
    ),
    "complex numbers": (
        lambda f, p, s: p.ByteFormerImageProcessor()(torch.zeros(3, 4, 4, dtype=torch.complex64)),
        "dtype complex64",
    ),
    "a seed beyond 64 bits": (
        lambda f, p, s: p.ByteFormerImageProcessor()(b"abc", seed=2**70),
        "seed must be an integer of 64 bits",
    ),
    "a generator that is none": (
        lambda f, p, s: p.ByteFormerImageProcessor()(b"abc", generator=7),
        "must be a torch.Generator, got int",
    ),
    "a memoryview with gaps": (
        lambda f, p, s: p.ByteFormerImageProcessor()(memoryview(b"abcdef")[::2]),
        "the bytes object cannot be read",
    ),
    "a gigabyte of sound as a path": (
        lambda f, p, s: s.ByteFormerFeatureExtractor()(gigabyte(f)),
        "has 1,073,741,824 bytes",
    ),
    "a gigabyte to decode as sound": (
        lambda f, p, s: s.ByteFormerFeatureExtractor().open_recording(gigabyte(f)),
        "at most 67,108,864",
    ),
    "a gigabyte of bytes to decode": (
        lambda f, p, s: s.ByteFormerFeatureExtractor().open_recording(bytes(2**30)),
        "the bytes object has 1,073,741,824 bytes",
    ),
    "a waveform of hours": (
        lambda f, p, s: s.ByteFormerFeatureExtractor()(np.broadcast_to(np.float32(0), 2**30)),
        "1,073,741,824 bytes; accepted",
    ),
    "a waveform of hours, cut": (
        lambda f, p, s: s.ByteFormerFeatureExtractor(num_samples=16000)(np.broadcast_to(np.float32(0), 2**30)),
        None,
    ),
    "the largest sound that is decoded": (
        lambda f, p, s: s.decode_wav(s.encode_wav(np.zeros(s.MAX_SOUND_FILE - 60, np.uint8), 16000)),
        None,
    ),
    "audio of 1e300": (lambda f, p, s: s.ByteFormerFeatureExtractor()(np.array([0.0, 1e300])), "beyond float32"),
    "audio that is no number": (lambda f, p, s: s.ByteFormerFeatureExtractor()([0.0, float("nan")]), "not finite"),
    "64-bit floats beyond 32": (
        lambda f, p, s: (
            s.ByteFormerFeatureExtractor()
            .open_recording(
                b"RIFF\x34\0\0\0WAVEfmt \x10\0\0\0\x03\0\x01\0\x80>\0\0\0\xf4\x01\0\x08\0\x40\0data\x08\0\0\0"
                + struct.pack("<d", 1e300)
            )
            .max()
            .item()
        ),
        None,
    ),
    "a rate that needs a table of gigabytes": (
        lambda f, p, s: s.check_resampling(9999991, 16000),
        "cannot be resampled",
    ),
    "a rate that is none": (lambda f, p, s: s.check_resampling(float("nan"), 16000), "audio at nan Hz"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    script = RUNNER.format(
        root=str(ROOT), tests=str(ROOT / "tests" / "processing"), folder=str(tmp_path_factory.mktemp("hostile"))
    )
    environment_paths = [str(ROOT / "scripts")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {environment_paths!r}\n{script}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (error, peak) for name, error, peak in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", CASES)
def test_one_line_in_bounded_memory(answers, name):
    error, peak = answers[name]
    expected = CASES[name][1]
    assert peak < MOST_MEMORY
    if expected is None:
        assert error is None
    else:
        assert error is not None and re.search(expected, error), error
        assert len(error) <= 500 and error.isprintable(), error


def mutated(content, generator):
    """Some bytes of it changed, cut out or doubled."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 8))):
        place = generator.randrange(len(data))
        kind = generator.randrange(4)
        if kind == 0:
            data[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[place : place + 4] = generator.choice(
                (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", generator.randbytes(4))
            )
        elif kind == 2:
            del data[place : place + generator.randrange(1, 40)]
        else:
            data[place:place] = data[place : place + generator.randrange(1, 40)]
        if not data:
            return b"\0"
    return bytes(data)


def with_right_checksums(png_file):
    """The chunks of a PNG with checksums that fit, so that a mutation reaches the decoder."""
    view, position = bytearray(png_file), 8
    while position + 12 <= len(view):
        (size,) = struct.unpack_from(">I", view, position)
        if position + 12 + size > len(view):
            break
        view[position + 8 + size : position + 12 + size] = struct.pack(
            ">I", zlib.crc32(view[position + 4 : position + 8 + size])
        )
        position += 12 + size
    return bytes(view)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_mutated_pictures_are_decoded_or_refused(tmp_path):
    generator, refused = random.Random(0), 0
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    originals = []
    for kind in ("PNG", "GIF", "JPEG", "TIFF", "BMP", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        originals.append(buffer.getvalue())
    processor, path = ByteFormerImageProcessor(size=8, crop_size=8), tmp_path / "picture"
    for trial in range(1500):
        content = mutated(originals[trial % len(originals)], generator)
        path.write_bytes(with_right_checksums(content) if content.startswith(b"\x89PNG") else content)
        try:
            assert processor(open_picture(path), return_tensors="np")["input_ids"].max() <= 255
        except ValueError as error:
            refused += 1
            assert len(str(error)) <= 500 and str(error).isprintable()
    assert 100 < refused < 1500


def test_mutated_sounds_are_decoded_or_refused():
    generator, refused = random.Random(0), 0
    samples = np.random.default_rng(0).uniform(-1, 1, 50)
    originals = [
        encode_wav((samples * scale).astype(kind), 16000)
        for kind, scale in (("u1", 100), ("<i2", 30000), ("<i4", 2e9), ("<f4", 1))
    ]
    for trial in range(3000):
        extractor = ByteFormerFeatureExtractor(
            num_samples=(None, 40)[trial % 2], sample_dtype=("float32", "uint8")[trial // 2 % 2]
        )
        try:
            made = extractor(extractor.open_recording(mutated(originals[trial % 4], generator)), return_tensors="np")[
                "input_ids"
            ]
            assert bytes(made[0, :4].tolist()) == b"RIFF"
        except ValueError as error:
            refused += 1
            assert len(str(error)) <= 500 and str(error).isprintable()
    assert 100 < refused < 2900


def test_what_is_large_but_sound_is_taken():
    """The bounds leave room: the longest file, a batch of a thousand pictures, usual rates, a narrow panorama."""
    assert ByteFormerImageProcessor()(bytes(MAX_BYTES // 8), return_tensors="np")["input_ids"].shape == (
        1,
        MAX_BYTES // 8,
    )
    thousand = ByteFormerImageProcessor()([bytes(150_000 + index % 7) for index in range(200)])
    assert len(thousand["input_ids"]) == 200
    for rate in (8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000, 192000):
        assert check_resampling(rate, 16000) is None
    panorama = ByteFormerImageProcessor(file_encoding="fHWC")(Image.new("RGB", (20000, 300)), return_tensors="np")
    assert panorama["input_ids"].shape == (1, 150528)
    assert MAX_SOUND_FILE > 5 * 60 * 44100 * 4  # five minutes of a compact disc
