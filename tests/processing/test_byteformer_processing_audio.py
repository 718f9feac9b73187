"""ByteFormerFeatureExtractor: WAV bytes against scipy's writer and Python's reader, files untouched, batches, bad input."""

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hubtools.assembly.recipes import load_recipe

from byteformer import ByteFormerFeatureExtractor
from byteformer.feature_extraction_byteformer import decode_wav

scipy_wavfile = pytest.importorskip("scipy.io.wavfile")  # comes with scikit-learn

RATE = 16000
SPEECH = (0.6 * np.sin(np.arange(RATE) * 0.13) * np.hanning(RATE)).astype(np.float32)  # one second
EXTREMES = np.array([-1.0, -0.5, -1e-6, 0.0, 1e-6, 0.25, 0.999999, 1.0], dtype=np.float32)
DTYPES = ("uint8", "int16", "int32", "float32")


def sent(extractor, audio, **kwargs):
    """The bytes that reach the model for one input."""
    return bytes(extractor(audio, return_tensors="np", **kwargs)["input_ids"][0].astype(np.uint8))


def by_scipy(samples, rate=RATE):
    buffer = io.BytesIO()
    scipy_wavfile.write(buffer, rate, samples)
    return buffer.getvalue()


def converted(waveform, dtype):
    """The published formulas as torch computes them on a float32 waveform, but for int32 at 1.0, where a cast would wrap."""
    x = torch.as_tensor(np.asarray(waveform, dtype=np.float32))
    scaled = {"uint8": (x + 1) * 255 / 2, "int16": x * (2**15 - 1), "int32": x * (2**31 - 1), "float32": x}[dtype]
    samples = scaled.to(getattr(torch, dtype)).numpy()
    return np.where(x.numpy() == 1, 2**31 - 1, samples).astype(np.int32) if dtype == "int32" else samples


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("waveform", [SPEECH, EXTREMES], ids=["speech", "extremes"])
def test_bytes_are_those_of_a_standard_wav_file(dtype, waveform):
    extractor = ByteFormerFeatureExtractor(sample_dtype=dtype)
    assert sent(extractor, waveform, sampling_rate=RATE) == by_scipy(converted(waveform, dtype))


def test_16_bit_speech_is_scaled_in_single_precision():
    """In float32, 2**31 - 1 is 2**31: sample k of 16-bit speech becomes k * 65536 exactly. And x * 32767 is rounded before it is cut."""
    speech = np.round(SPEECH * 2**15).astype(np.int16)
    samples = np.frombuffer(
        sent(ByteFormerFeatureExtractor(sample_dtype="int32"), speech / np.float32(2**15)), "<i4", offset=44
    )
    assert samples.tolist() == [int(sample) * 65536 for sample in speech]
    left, right = np.random.default_rng(0).uniform(-1, 1, (2, RATE)).astype(np.float32)
    expected = (torch.tensor(np.stack([left, right])).mean(dim=0) * 32767).to(torch.int16).numpy()
    single = (((left.astype(np.float64) + right) / 2) * 32767).astype(np.int16)  # what double precision would give
    assert (single != expected).any()
    assert sent(ByteFormerFeatureExtractor(sample_dtype="int16"), np.stack([left, right])) == by_scipy(expected)


@pytest.mark.parametrize("dtype, silence", [("uint8", 127), ("int16", 0), ("int32", 0), ("float32", 0.0)])
def test_clips_are_cut_or_padded_to_the_recipes_length(dtype, silence):
    extractor = ByteFormerFeatureExtractor(sample_dtype=dtype, num_samples=RATE)
    for length in (1, 12345, RATE, RATE + 1, 3 * RATE):
        clip = np.resize(SPEECH, length)
        _, samples = scipy_wavfile.read(io.BytesIO(sent(extractor, clip)))
        assert len(samples) == RATE
        assert samples[:length].tolist() == converted(clip[:RATE], dtype).tolist()
        assert (samples[length:] == silence).all()
    assert sent(extractor, np.stack([SPEECH, SPEECH])) == sent(extractor, SPEECH)
    assert sent(extractor, b"RIFF and so on") == b"RIFF and so on"  # a file stays as it is


def test_an_odd_number_of_bytes_is_padded_to_an_even_file():
    data = sent(ByteFormerFeatureExtractor(sample_dtype="uint8"), EXTREMES[:5])
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8 and len(data) % 2 == 0
    with wave.open(io.BytesIO(data)) as file:
        assert file.readframes(100) == converted(EXTREMES[:5], "uint8").tobytes()


@pytest.mark.parametrize(
    "dtype, first, last",
    [("uint8", 0, 255), ("int16", -32767, 32767), ("int32", -(2**31), 2**31 - 1), ("float32", -1.0, 1.0)],
)
def test_full_scale(dtype, first, last):
    rate, samples = scipy_wavfile.read(
        io.BytesIO(sent(ByteFormerFeatureExtractor(sampling_rate=8000, sample_dtype=dtype), [-1.0, 1.0]))
    )
    assert (rate, samples.dtype, samples.tolist()) == (8000, dtype, [first, last])


@pytest.mark.parametrize("dtype, width", [("uint8", 1), ("int16", 2), ("int32", 4)])
def test_python_reads_the_wav(dtype, width):
    with wave.open(io.BytesIO(sent(ByteFormerFeatureExtractor(sample_dtype=dtype), SPEECH))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (
            1,
            width,
            RATE,
            RATE,
        )


def test_one_second_of_the_released_recipe():
    data = sent(
        ByteFormerFeatureExtractor(**load_recipe("byteformer-speech-commands-wav").processor),
        SPEECH,
        sampling_rate=RATE,
    )
    assert len(data) == 58 + 4 * RATE
    assert data[:4] + data[8:12] == b"RIFFWAVE" and struct.unpack("<I", data[4:8])[0] == len(data) - 8
    assert data[58:] == SPEECH.tobytes()


def test_two_channels_are_averaged():
    extractor = ByteFormerFeatureExtractor()
    left, right = SPEECH, SPEECH[::-1].copy()
    expected = by_scipy(((left.astype(np.float64) + right) / 2).astype(np.float32))
    for stereo in (np.stack([left, right]), np.stack([left, right], axis=1), torch.tensor(np.stack([left, right]))):
        assert sent(extractor, stereo) == expected


def test_forms_of_a_waveform():
    extractor = ByteFormerFeatureExtractor()
    expected = sent(extractor, EXTREMES)
    for given in (
        EXTREMES.tolist(),
        EXTREMES[None],
        EXTREMES[:, None],
        torch.tensor(EXTREMES),
        EXTREMES.astype(np.float64),
        [EXTREMES],
        [EXTREMES.tolist()],
    ):
        assert sent(extractor, given) == expected
    halves = torch.tensor([0.5, -0.25], dtype=torch.bfloat16)
    assert sent(extractor, halves) == sent(extractor, [0.5, -0.25])


@pytest.mark.parametrize("encoding", ["WAV", "MP3", None])
def test_files_and_bytes_are_sent_as_they_are(encoding, tmp_path):
    content = b"ID3\x04" + bytes(range(256)) * 3
    path = tmp_path / "word.mp3"
    path.write_bytes(content)
    extractor = ByteFormerFeatureExtractor(file_encoding=encoding)
    for given in (path, str(path), content):
        assert sent(extractor, given) == content


def test_batches_are_padded_to_the_longest_with_256():
    extractor = ByteFormerFeatureExtractor(sample_dtype="int16")
    batch = extractor([SPEECH, EXTREMES, b"RIFF"], sampling_rate=RATE, return_tensors="pt")
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 44 + 2 * RATE)
    assert batch["attention_mask"].sum(1).tolist() == [44 + 2 * RATE, 44 + 2 * len(EXTREMES), 4]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 256).all()
    assert bytes(batch["input_ids"][1, : 44 + 2 * len(EXTREMES)].tolist()) == sent(extractor, EXTREMES)


def test_save_and_load_keep_every_argument(tmp_path):
    ByteFormerFeatureExtractor(
        sampling_rate=8000, file_encoding="MP3", sample_dtype="uint8", num_samples=4000
    ).save_pretrained(tmp_path)
    loaded = ByteFormerFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.sampling_rate, loaded.file_encoding, loaded.sample_dtype, loaded.num_samples) == (
        8000,
        "MP3",
        "uint8",
        4000,
    )
    assert ByteFormerFeatureExtractor.from_pretrained(tmp_path, file_encoding="WAV").file_encoding == "WAV"
    assert (tmp_path / "feature_extraction_byteformer.py").read_bytes() == (
        Path(__file__).parents[2] / "byteformer" / "feature_extraction_byteformer.py"
    ).read_bytes()


# --- reading WAV, which the pipeline does -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, step", [("uint8", 1 / 128), ("int16", 2**-15), ("int32", 2**-31), ("float32", 0), ("float64", 0)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_decode_wav(dtype, step, channels):
    x = np.random.default_rng(0).uniform(-1, 1, (1000, channels))
    full = {"uint8": np.floor(x * 128 + 128), "int16": x * 2**15, "int32": x * 2**31}.get(dtype, x).astype(dtype)
    decoded, rate = decode_wav(by_scipy(full, 22050))
    assert rate == 22050 and decoded.shape == (channels, 1000)
    assert np.abs(decoded.T - x).max() <= step + 1e-7


def test_decode_wav_of_24_bits_extensible_and_with_other_chunks():
    values = np.array([-(2**23), -1, 0, 1, 2**23 - 1], dtype=np.int32)
    data = b"".join(int(value).to_bytes(3, "little", signed=True) for value in values)
    guid = struct.pack("<H", 1) + b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
    layout = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 48000, 144000, 3, 24, 22, 24, 4) + guid
    chunks = (
        b"LIST"
        + struct.pack("<I", 3)
        + b"abc\0"
        + b"fmt "
        + struct.pack("<I", len(layout))
        + layout
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )
    decoded, rate = decode_wav(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    assert rate == 48000
    assert decoded[0].tolist() == (values / 2.0**23).tolist()


def test_a_recording_in_the_recipes_own_format_is_read_back_to_the_same_bytes():
    extractor = ByteFormerFeatureExtractor()
    data = sent(extractor, SPEECH)
    channels, rate = decode_wav(data)
    assert sent(extractor, channels, sampling_rate=rate) == data


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_ARGUMENTS = {
    "encoding": ({"file_encoding": "FLAC"}, "unknown file_encoding 'FLAC'; accepted: None, WAV, MP3"),
    "dtype": ({"sample_dtype": "int24"}, "unknown sample_dtype 'int24'; accepted: uint8, int16, int32, float32"),
    "rate zero": ({"sampling_rate": 0}, "positive integer .Hz., got 0"),
    "rate a float": ({"sampling_rate": 16000.0}, "got 16000.0"),
    "rate beyond any": ({"sampling_rate": 10**12}, "at most 10,000,000 .Hz., got 1000000000000"),
    "no samples": ({"num_samples": 0}, "num_samples must be a positive integer, got 0"),
    "samples a float": ({"num_samples": 1.5}, "got 1.5"),
    "samples beyond any": ({"num_samples": 10**9}, "num_samples must be at most 33,554,432"),
    "unknown argument": ({"sample_rate": 16000}, "does not know sample_rate"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        ByteFormerFeatureExtractor(**arguments)


BAD_AUDIO = {
    "three channels": (np.zeros((3, 100), np.float32), r"shape \(3, 100\)"),
    "three dimensions": (np.zeros((1, 1, 100), np.float32), r"shape \(1, 1, 100\)"),
    "a single number": (np.float32(0.5), "float32"),
    "empty": (np.zeros(0, np.float32), "is empty"),
    "empty list": ([], "empty list"),
    "not a number": (np.array([0.0, np.nan]), "not finite"),
    "infinite": (torch.tensor([0.0, float("inf")]), "not finite"),
    "beyond float32": (np.array([0.0, 1e300]), "beyond float32"),
    "integers as floats": (np.array([0.0, 12345.0], np.float32), "reaches 12345; accepted: floats in"),
    "ragged list": ([0.5, [0.5]], "cannot read a waveform: .*inhomogeneous"),
    "words": (["0.5"], "no such file"),
    "numbers beyond any float": ([0.5, 10**400], "waveform"),
    "sparse tensor": (torch.zeros(3).to_sparse(), "sparse_coo tensor"),
    "meta tensor": (torch.zeros(3, device="meta"), "a meta tensor"),
    "integers": (np.zeros(10, np.int16), "dtype int16; accepted: floats"),
    "integer tensor": (torch.zeros(10, dtype=torch.int16), "dtype int16"),
    "none": (None, "NoneType"),
    "a dictionary": ({"array": SPEECH}, "cannot read a waveform from dict"),
    "empty bytes": (b"", "is empty: 0 bytes"),
    "missing file": ("no/such/word.wav", "no such file: 'no/such/word.wav'"),
}


@pytest.mark.parametrize("name", BAD_AUDIO)
def test_bad_audio(name):
    audio, message = BAD_AUDIO[name]
    with pytest.raises(ValueError, match=message):
        ByteFormerFeatureExtractor()(audio)


def test_bad_calls():
    with pytest.raises(ValueError, match="at 16000 Hz, got sampling_rate=8000"):
        ByteFormerFeatureExtractor()(SPEECH, sampling_rate=8000)
    with pytest.raises(ValueError, match="file_encoding is 'MP3'"):
        ByteFormerFeatureExtractor(file_encoding="MP3")(SPEECH)
    with pytest.raises(ValueError, match="reaches 1.5"):
        ByteFormerFeatureExtractor(sample_dtype="int16")([0.0, 1.5])
    with pytest.raises(ValueError, match="return_tensors"):
        ByteFormerFeatureExtractor()(SPEECH, return_tensors="tf")


BAD_WAV = {
    "no RIFF": (b"ID3" + bytes(60), "not a WAV file"),
    "RIFF of another kind": (b"RIFF\0\0\0\0AVI " + bytes(40), "not a WAV file"),
    "header only": (by_scipy(np.zeros(4, np.int16))[:44], "damaged WAV file: 16 bytes of format and 0 bytes"),
    "no format": (b"RIFF\0\0\0\0WAVEdata\x02\0\0\0ab", "damaged WAV file: 0 bytes of format"),
    "samples cut short": (by_scipy(np.zeros(4, np.int16))[:50], "chunk b'data' claims 8 bytes and has 6"),
    "samples without end": (
        by_scipy(np.zeros(4, np.int16))[:40] + b"\xff" * 4 + bytes(8),
        "claims 4,294,967,295 bytes and has 8",
    ),
    "file without end": (
        b"RIFF" + b"\xff" * 4 + by_scipy(np.zeros(4, np.int16))[8:],
        "claims 4,294,967,295 bytes and has 52",
    ),
    "fewer samples than there are": (
        by_scipy(np.zeros(400, np.int16))[:40] + b"\x02\0\0\0" + bytes([9]) * 800,
        "chunk b'.*' claims",
    ),
    "six channels": (by_scipy(np.zeros((4, 6), np.int16)), "6 channels at 16000 Hz; accepted: 1 or 2"),
    "no rate": (by_scipy(np.zeros(4, np.int16), 0), "at 0 Hz; accepted"),
    "compressed": (
        by_scipy(np.zeros(4, np.int16)).replace(b"\x10\0\0\0\x01\0", b"\x10\0\0\0\x11\0"),
        "format 17 with 16 bits",
    ),
}


@pytest.mark.parametrize("name", BAD_WAV)
def test_bad_wav(name):
    content, message = BAD_WAV[name]
    with pytest.raises(ValueError, match=message):
        decode_wav(content)
