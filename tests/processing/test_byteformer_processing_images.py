"""ByteFormerImageProcessor on real photographs: every published recipe byte by byte, files untouched, batches, bad input."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hubtools.assembly.recipes import load_recipe
from PIL import Image
from sklearn.datasets import load_sample_images

from byteformer import ByteFormerImageProcessor

CHINA, FLOWER = (Image.fromarray(pixels) for pixels in load_sample_images().images)  # photographs of 640 x 427
SEED = 2147483647


def prepared(image, size=256, crop=224):
    """Shorter side to `size`, bicubic, and the central square, as Pillow does it."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize(
        (int(width * scale), size) if width > height else (size, int(height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    return image.crop((left, top, left + crop, top + crop))


def saved(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def ids(processor, image, **kwargs):
    return processor(image, return_tensors="np", **kwargs)["input_ids"]


def sent(processor, image, **kwargs):
    """The bytes that reach the model for one input."""
    return bytes(ids(processor, image, **kwargs)[0].astype(np.uint8))


def permutation(length):
    return torch.randperm(length, generator=torch.Generator().manual_seed(SEED)).tolist()


# The orders and steps once more, one byte at a time.
def reordered(data, order, stride=1024, window=1024):
    if order == "reverse":
        return bytes(data[len(data) - 1 - i] for i in range(len(data)))
    if order == "cyclic_half_length":
        return bytes(data[(i - len(data) // 2) % len(data)] for i in range(len(data)))
    if order == "stride":
        return bytes(data[i] for offset in range(stride) for i in range(offset, len(data), stride))
    p = permutation(window)
    whole = len(data) // window * window
    return bytes(data[start + p[i]] for start in range(0, whole, window) for i in range(window)) + bytes(data[whole:])


def kept(data, fraction):
    return bytes(data[i] for i in sorted(permutation(len(data))[: int(fraction * len(data))]))


def permuted(data):
    p = permutation(256)
    return bytes(p[byte] for byte in data)


ENCODED = {
    "TIFF": lambda image: saved(image, "TIFF"),
    "PNG": lambda image: saved(image, "PNG", compress_level=0),
    "fCHW": lambda image: np.asarray(image).transpose(2, 0, 1).tobytes(),
    "fHWC": lambda image: np.asarray(image).tobytes(),
}


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("image", [CHINA, FLOWER], ids=["china", "flower"])
def test_encodings(encoding, image):
    assert sent(ByteFormerImageProcessor(file_encoding=encoding), image) == ENCODED[encoding](prepared(image))


@pytest.mark.parametrize("quality", [1, 60, 100])
def test_jpeg_quality(quality):
    data = sent(ByteFormerImageProcessor(file_encoding="JPEG", quality=quality), CHINA)
    assert data == saved(prepared(CHINA), "JPEG", quality=quality)
    assert Image.open(io.BytesIO(data)).size == (224, 224)


def test_lengths_of_the_published_encodings():
    assert len(sent(ByteFormerImageProcessor(file_encoding="fHWC"), CHINA)) == 224 * 224 * 3 == 150528
    assert len(sent(ByteFormerImageProcessor(file_encoding="fHWC", keep_fraction=0.05), CHINA)) == 7526


@pytest.mark.parametrize("order", ["reverse", "cyclic_half_length", "stride", "window_shuffle"])
@pytest.mark.parametrize("length", [1, 7, 1023, 1024, 2500])
def test_byte_orders(order, length):
    data = bytes(np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8))
    assert sent(ByteFormerImageProcessor(byte_order=order), data) == reordered(data, order)
    other = ByteFormerImageProcessor(byte_order=order, byte_order_stride=3, byte_order_window=5)
    assert sent(other, data) == reordered(data, order, stride=3, window=5)


def test_byte_orders_by_value():
    def order(name, **kwargs):
        return list(sent(ByteFormerImageProcessor(byte_order=name, **kwargs), bytes(range(7))))

    assert order("reverse") == [6, 5, 4, 3, 2, 1, 0]
    assert order("cyclic_half_length") == [4, 5, 6, 0, 1, 2, 3]
    assert order("stride", byte_order_stride=3) == [0, 3, 6, 1, 4, 2, 5]
    assert order(None) == list(range(7))


def test_random_shuffle_moves_every_byte_and_follows_the_seed():
    processor, data = ByteFormerImageProcessor(byte_order="random_shuffle"), bytes(range(256))
    first = sent(processor, data, seed=1)
    assert sorted(first) == list(range(256)) and first != data
    assert sent(processor, data, seed=1) == first != sent(processor, data, seed=2)
    assert sent(processor, data) != sent(processor, data)


def test_fixed_byte_permutation():
    data = sent(ByteFormerImageProcessor(permute_bytes=True), bytes(range(256)))
    assert list(data[:8]) == [239, 90, 81, 175, 9, 100, 40, 32]
    assert sorted(data) == list(range(256))
    assert data == permuted(bytes(range(256)))


def test_kept_positions_are_those_of_the_published_camera():
    positions = np.arange(150528)
    processor = ByteFormerImageProcessor(keep_fraction=0.05)
    # every position is told by three bytes of it: what is kept must be the same positions for all three
    told = [
        np.frombuffer(sent(processor, ((positions >> shift) & 255).astype(np.uint8).tobytes()), np.uint8).astype(int)
        for shift in (0, 8, 16)
    ]
    kept_positions = told[0] + (told[1] << 8) + (told[2] << 16)
    assert len(kept_positions) == 7526
    assert kept_positions[:5].tolist() == [3, 19, 63, 106, 110]
    assert (np.diff(kept_positions) > 0).all()


@pytest.mark.parametrize("fraction", [0.05, 0.5, 1.0])
def test_keep_fraction(fraction):
    data = sent(ByteFormerImageProcessor(file_encoding="JPEG"), FLOWER)
    assert sent(ByteFormerImageProcessor(file_encoding="JPEG", keep_fraction=fraction), FLOWER) == kept(data, fraction)


def test_noise_is_uniform_in_its_range_modulo_256_and_seeded():
    processor, data = ByteFormerImageProcessor(noise_range=[-20, 20]), bytes([5, 250]) * 50000
    difference = np.frombuffer(sent(processor, data, seed=3), np.uint8).astype(int) - np.frombuffer(data, np.uint8)
    difference = (difference + 128) % 256 - 128
    values, counts = np.unique(difference, return_counts=True)
    assert values.tolist() == list(range(-20, 21))
    assert counts.min() * 41 / 100000 > 0.85 and counts.max() * 41 / 100000 < 1.15
    assert sent(processor, data, seed=3) == sent(processor, data, generator=torch.Generator().manual_seed(3))
    assert sent(processor, data, seed=3) != sent(processor, data, seed=4)
    torch.manual_seed(0)
    first = sent(processor, data)
    torch.manual_seed(0)
    assert sent(processor, data) == first


def test_no_noise_unless_asked():
    processor = ByteFormerImageProcessor(file_encoding="fHWC", permute_bytes=True)
    assert sent(processor, CHINA) == sent(processor, CHINA)


def test_steps_apply_in_the_order_encode_reorder_keep_noise_permute():
    processor = ByteFormerImageProcessor(
        file_encoding="fCHW",
        byte_order="stride",
        byte_order_stride=7,
        keep_fraction=0.3,
        noise_range=[40, 40],
        permute_bytes=True,
    )
    data = kept(reordered(ENCODED["fCHW"](prepared(CHINA)), "stride", stride=7), 0.3)
    assert sent(processor, CHINA) == permuted(bytes((byte + 40) % 256 for byte in data))


RELEASED = {
    "byteformer-imagenet-tiff": ENCODED["TIFF"],
    "byteformer-imagenet-jpeg-q100-k8-w128": lambda image: saved(image, "JPEG", quality=100),
    "byteformer-imagenet-jpeg-q60-k4-w128": lambda image: saved(image, "JPEG", quality=60),
    "byteformer-imagenet-shuffle-bytes-reverse": lambda image: saved(image, "JPEG", quality=100)[::-1],
    "byteformer-imagenet-privacy-preserving-camera-k4-f005": lambda image: kept(ENCODED["fHWC"](image), 0.05),
}


@pytest.mark.parametrize("name", RELEASED)
def test_recipes_of_the_released_checkpoints(name):
    processor = ByteFormerImageProcessor(**load_recipe(name).processor)
    assert sent(processor, FLOWER) == RELEASED[name](prepared(FLOWER))


def test_recipe_of_the_released_obfuscation():
    processor = ByteFormerImageProcessor(**load_recipe("byteformer-imagenet-obfuscation").processor)
    p = np.array(permutation(256))
    plain = np.argsort(p)[np.frombuffer(sent(processor, FLOWER), np.uint8)]  # the permutation undone
    difference = (plain - np.frombuffer(ENCODED["fHWC"](prepared(FLOWER)), np.uint8) + 128) % 256 - 128
    assert difference.min() == -20 and difference.max() == 20


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_files_and_bytes_are_sent_undecoded(tmp_path):
    processor = ByteFormerImageProcessor(file_encoding="TIFF")
    for file_format in ("JPEG", "PNG"):
        path = tmp_path / f"photo.{file_format.lower()}"
        CHINA.save(path)
        for given in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
            assert sent(processor, given) == path.read_bytes()
    (tmp_path / "no-image.bin").write_bytes(b"anything")
    assert sent(processor, tmp_path / "no-image.bin") == b"anything"


def test_byte_steps_apply_to_files_too(tmp_path):
    CHINA.save(tmp_path / "photo.jpg")
    data = (tmp_path / "photo.jpg").read_bytes()
    processor = ByteFormerImageProcessor(byte_order="reverse", keep_fraction=0.5, permute_bytes=True)
    assert sent(processor, tmp_path / "photo.jpg") == permuted(kept(data[::-1], 0.5))


def test_arrays_and_tensors_are_read_like_the_image():
    processor = ByteFormerImageProcessor(file_encoding="fHWC")
    expected, pixels = sent(processor, CHINA), np.asarray(CHINA)
    planes = pixels.transpose(2, 0, 1)
    for given in (
        pixels,
        planes,
        torch.tensor(pixels),
        torch.tensor(planes),
        torch.tensor(planes) / 255,
        pixels / 255,
        pixels.astype(np.int64),
    ):
        assert sent(processor, given) == expected


def test_modes_become_rgb():
    processor = ByteFormerImageProcessor(file_encoding="fHWC", do_resize=False, do_center_crop=False)
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)
    tripled = np.repeat(grey[..., None], 3, axis=-1).tobytes()
    for given in (
        grey,
        grey[..., None],
        grey[None],
        Image.fromarray(grey),
        torch.tensor(grey),
        Image.fromarray(grey).convert("RGBA"),
        Image.fromarray(grey).convert("P"),
    ):
        assert sent(processor, given) == tripled


def test_layout_can_be_said_where_the_shape_does_not_tell():
    processor = ByteFormerImageProcessor(file_encoding="fHWC", do_resize=False, do_center_crop=False)
    cube = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert sent(processor, cube, input_data_format="channels_last") == cube.tobytes() == sent(processor, cube)
    first = cube.transpose(1, 2, 0).tobytes()
    assert sent(processor, cube, input_data_format="channels_first") == first == sent(processor, torch.tensor(cube))


@pytest.mark.parametrize("shape", [(10, 21), (21, 10), (12, 20), (5, 5), (9, 9), (300, 7)])
def test_crop_is_central_and_pads_small_images_with_black(shape):
    pixels = np.random.default_rng(0).integers(1, 256, (*shape, 3), dtype=np.uint8)
    out = ids(ByteFormerImageProcessor(file_encoding="fHWC", do_resize=False, crop_size=9), pixels)[0].reshape(9, 9, 3)
    height, width = (min(side, 9) for side in shape)
    top, left = (9 - height) // 2, (9 - width) // 2
    inside = out[top : top + height, left : left + width]
    y, x = ((side - 9) // 2 if side > 9 else 0 for side in shape)
    assert (inside == pixels[y : y + height, x : x + width]).all()
    assert (out == 0).sum() == (81 - height * width) * 3


def test_of_an_odd_margin_the_smaller_half_goes_before_the_crop():
    """500 x 334 becomes 383 x 256, whose margins are 159 and 32: 79 columns and 16 rows before, 80 and 16 after."""
    columns = np.broadcast_to(np.arange(500) % 250, (334, 500)).astype(np.uint8)
    photo = Image.fromarray(np.stack([columns, np.flip(columns, 1), columns], axis=-1))
    resized = photo.resize((383, 256), Image.Resampling.BICUBIC)
    rows = [[resized.getpixel((79 + x, 16 + y)) for x in range(224)] for y in range(224)]
    assert (383 - 79 - 224, 256 - 16 - 224) == (80, 16)
    assert sent(ByteFormerImageProcessor(file_encoding="fHWC"), photo) == np.array(rows, dtype=np.uint8).tobytes()
    for margin in range(9):
        strip = np.arange(1, 6 + margin, dtype=np.uint8)[None].repeat(5, axis=0)
        kept_columns = ids(ByteFormerImageProcessor(file_encoding="fHWC", do_resize=False, crop_size=5), strip)[
            0
        ].reshape(5, 5, 3)[0, :, 0]
        before, after = kept_columns[0] - 1, 5 + margin - kept_columns[-1]
        assert before + after == margin and after - before in (0, 1)


def test_the_filter_of_resizing_is_pillows(tmp_path):
    for name, number in (("nearest", 0), ("lanczos", 1), ("bilinear", 2), ("bicubic", 3), ("box", 4), ("hamming", 5)):
        expected = CHINA.resize((40, 30), number).tobytes()
        for given in (name, number, Image.Resampling(number)):
            processor = ByteFormerImageProcessor(
                file_encoding="fHWC", size=(30, 40), do_center_crop=False, resample=given
            )
            assert sent(processor, CHINA) == expected
        processor.save_pretrained(tmp_path)
        assert ByteFormerImageProcessor.from_pretrained(tmp_path).resample == number
    assert ByteFormerImageProcessor().resample == 3


@pytest.mark.parametrize(
    "size, expected",
    [(64, (96, 64)), ({"shortest_edge": 64}, (96, 64)), ([50, 70], (70, 50)), ({"height": 50, "width": 70}, (70, 50))],
)
def test_sizes(size, expected):
    processor = ByteFormerImageProcessor(file_encoding="PNG", size=size, do_center_crop=False)
    image = Image.open(io.BytesIO(sent(processor, CHINA.crop((0, 0, 600, 400)))))
    assert image.size == expected
    portrait = Image.open(io.BytesIO(sent(processor, CHINA.crop((0, 0, 280, 420)))))
    assert portrait.size == (expected if expected == (70, 50) else (64, 96))


def test_metadata_of_the_file_does_not_leak_into_the_encoding(tmp_path):
    CHINA.save(tmp_path / "tagged.jpg", quality=95, dpi=(300, 300), comment=b"a comment")
    loaded = Image.open(tmp_path / "tagged.jpg")
    for encoding in ("JPEG", "PNG", "TIFF"):
        processor = ByteFormerImageProcessor(file_encoding=encoding)
        assert sent(processor, loaded) == sent(processor, np.asarray(loaded))


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_are_padded_to_the_longest_with_256():
    processor = ByteFormerImageProcessor(file_encoding="JPEG", quality=60)
    rows = [sent(processor, CHINA), sent(processor, FLOWER), b"short"]
    batch = processor([CHINA, FLOWER, b"short"], return_tensors="pt")
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, max(map(len, rows)))
    for row, row_ids, mask in zip(rows, batch["input_ids"], batch["attention_mask"]):
        assert bytes(row_ids[: len(row)].tolist()) == row
        assert (row_ids[len(row) :] == 256).all()
        assert mask.tolist() == [1] * len(row) + [0] * (len(mask) - len(row))


def test_tensors_of_four_dimensions_are_batches():
    processor = ByteFormerImageProcessor(file_encoding="fCHW", do_resize=False, crop_size=8)
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(processor(images, return_tensors="pt")["input_ids"], images.reshape(3, -1).long())


def test_return_types():
    processor = ByteFormerImageProcessor()
    assert isinstance(processor(CHINA, return_tensors="pt").input_ids, torch.Tensor)
    assert isinstance(processor(CHINA, return_tensors="np")["input_ids"], np.ndarray)
    plain = processor([b"ab", b"abc"])
    assert [row.tolist() for row in plain["input_ids"]] == [[97, 98, 256], [97, 98, 99]]
    assert processor.preprocess(images=b"ab", return_tensors="np")["input_ids"].tolist() == [[97, 98]]


def test_arguments_can_be_overridden_for_one_call():
    processor = ByteFormerImageProcessor(file_encoding="TIFF")
    assert sent(processor, CHINA, file_encoding="JPEG", quality=60) == saved(prepared(CHINA), "JPEG", quality=60)
    assert processor.file_encoding == "TIFF"


# --- saving -----------------------------------------------------------------------------------------------------------


def test_save_and_load_keep_every_argument(tmp_path):
    arguments = {
        "do_resize": False, "size": {"height": 30, "width": 40}, "do_center_crop": False, "crop_size": 20, "file_encoding": "fCHW", "quality": 33, "byte_order": "stride",
        "byte_order_stride": 5, "byte_order_window": 6, "keep_fraction": 0.25, "noise_range": (-3, 4), "permute_bytes": True,
    }  # fmt: skip
    processor = ByteFormerImageProcessor(**arguments)
    processor.save_pretrained(tmp_path)
    loaded = ByteFormerImageProcessor.from_pretrained(tmp_path)
    assert {key: getattr(loaded, key) for key in arguments} == {key: getattr(processor, key) for key in arguments}
    assert sent(loaded, CHINA, seed=1) == sent(processor, CHINA, seed=1)
    assert ByteFormerImageProcessor.from_pretrained(tmp_path, quality=90).quality == 90
    assert (tmp_path / "image_processing_byteformer.py").read_bytes() == (
        Path(__file__).parents[2] / "byteformer" / "image_processing_byteformer.py"
    ).read_bytes()


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_ARGUMENTS = {
    "encoding": (
        {"file_encoding": "WEBP"},
        "unknown file_encoding 'WEBP'; accepted: None, JPEG, PNG, TIFF, fCHW, fHWC",
    ),
    "byte order": ({"byte_order": "backwards"}, "unknown byte_order 'backwards'"),
    "quality too high": ({"quality": 101}, "from 1 to 100, got 101"),
    "quality zero": ({"quality": 0}, "from 1 to 100, got 0"),
    "quality a float": ({"quality": 60.5}, "got 60.5"),
    "keep nothing": ({"keep_fraction": 0}, r"\(0, 1\], got 0"),
    "keep more than all": ({"keep_fraction": 1.5}, "got 1.5"),
    "keep text": ({"keep_fraction": "half"}, "got 'half'"),
    "noise one number": ({"noise_range": 20}, "got 20"),
    "noise three numbers": ({"noise_range": [0, 1, 2]}, "two integers"),
    "noise reversed": ({"noise_range": [5, -5]}, "low <= high"),
    "noise floats": ({"noise_range": [-0.5, 0.5]}, "two integers"),
    "stride zero": ({"byte_order_stride": 0}, "byte_order_stride must be a positive integer, got 0"),
    "window negative": ({"byte_order_window": -1}, "byte_order_window must be a positive integer"),
    "size zero": ({"size": 0}, "size.*positive integer, got 0"),
    "size keys": ({"size": {"longest_edge": 3}}, "shortest_edge"),
    "crop keys": ({"crop_size": {"shortest_edge": 3}}, "height"),
    "flag": ({"do_resize": "yes"}, "do_resize must be True or False, got 'yes'"),
    "filter": ({"resample": "cubic"}, "lanczos \\(1\\).*got 'cubic'"),
    "filter number": ({"resample": 9}, "got 9"),
    "window beyond any input": (
        {"byte_order_window": 500_000_000},
        "byte_order_window must be at most 33,554,432, got 500000000",
    ),
    "size beyond any image": ({"size": 20000}, "size has 20000 x 20000 pixels; accepted: at most"),
    "crop beyond any image": ({"crop_size": [10**9, 10**9]}, "at most 33,554,432"),
    "noise beyond 32 bits": ({"noise_range": [0, 10**30]}, "modulo 256"),
    "text without end": ({"byte_order": "x" * 10**6}, "unknown byte_order 'xxx.*accepted"),
    "unknown argument": ({"file_enconding": "PNG"}, "does not know file_enconding; known: do_resize"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        ByteFormerImageProcessor(**arguments)
    with pytest.raises(ValueError, match=message):
        ByteFormerImageProcessor()(CHINA, **arguments)


BAD_IMAGES = {
    "empty bytes": (b"", "is empty"),
    "missing file": ("no/such/photo.jpg", "no such file: 'no/such/photo.jpg'"),
    "an address": ("https://example.org/photo.jpg", "no such file"),
    "a folder": (Path("."), "no such file"),
    "empty list": ([], "empty list"),
    "none": (None, "NoneType"),
    "a number": (7, "cannot read an image from int"),
    "empty array": (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
    "five dimensions": (np.zeros((1, 1, 4, 4, 3), np.uint8), r"shape \(1, 1, 4, 4, 3\)"),
    "one dimension": (np.zeros(4, np.uint8), r"shape \(4,\)"),
    "five channels": (np.zeros((5, 6, 5), np.uint8), "5 channels"),
    "floats beyond 1": (np.full((4, 4, 3), 200.0), r"\[0, 1\], got 200.0"),
    "not a number": (np.full((4, 4, 3), np.nan), "nan"),
    "negative integers": (np.full((4, 4, 3), -1), r"\[0, 255\], got -1"),
    "integers beyond 255": (np.full((4, 4, 3), 256), "got 256"),
    "booleans": (np.zeros((4, 4), bool), "dtype bool"),
    "16-bit image": (Image.fromarray(np.full((4, 4), 40000, np.uint16)), "'I;16' has more than 8 bits"),
    "float image": (Image.new("F", (4, 4)), "'F' has more than 8 bits"),
    "image without pixels": (Image.new("RGB", (0, 4)), "image is empty"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images(name):
    image, message = BAD_IMAGES[name]
    with pytest.raises(ValueError, match=message):
        ByteFormerImageProcessor()(image)


def test_damaged_image_files(tmp_path):
    CHINA.save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:3000])
    with pytest.raises(ValueError, match="cannot be decoded"):
        ByteFormerImageProcessor()(Image.open(tmp_path / "cut.jpg"))
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="is empty: 0 bytes"):
        ByteFormerImageProcessor()(tmp_path / "empty.jpg")


def test_bad_calls():
    with pytest.raises(ValueError, match="return_tensors"):
        ByteFormerImageProcessor()(CHINA, return_tensors="tf")
    with pytest.raises(ValueError, match="input_data_format"):
        ByteFormerImageProcessor()(np.zeros((4, 4, 3), np.uint8), input_data_format="HWC")
    with pytest.raises(ValueError, match="keeps none; give at least 20 bytes"):
        ByteFormerImageProcessor(keep_fraction=0.05)(b"0123456789")
    with pytest.raises(ValueError, match="not both"):
        ByteFormerImageProcessor()(CHINA, seed=1, generator=torch.Generator())
    with pytest.raises(ValueError, match="file_encoding is None"):
        ByteFormerImageProcessor(file_encoding=None)(CHINA)
