# SPDX-License-Identifier: Apache-2.0
"""ByteFormer's feature extractor: waveforms, or audio files, to the bytes that the model reads.

Source: the audio experiments of Horton et al., "Bytes Are All You Need", arXiv 2306.00238.

1. Waveforms become a WAV file: RIFF, little endian, mono. uint8, int16 and int32 are written as integer PCM with a 44-byte
   header; float32 as WAVE_FORMAT_IEEE_FLOAT with the 18-byte format chunk and the `fact` chunk that the standard asks of
   everything but PCM, 58 bytes in all.
2. Waveforms are scaled in float32, as the published files were, which decides the last digit, and integer samples are cut
   towards zero, as a cast does. Where float32 reaches 2**31, a sample is the largest int32: there a cast would wrap.
3. `bytes` and file paths, WAV or MP3, are taken as they are: nothing is decoded or resampled.
4. Clips are first cut, or padded with silence at their end, to `num_samples` where that is set.
5. `pipeline("audio-classification")` decodes a WAV file first and writes it anew by the recipe, so that any WAV of the right
   sampling rate is read as the model was trained; where the recipe is "MP3" or None, the file's own bytes go in.
6. Inputs may come from strangers: what they may ask for is bounded (MAX_BYTES, MAX_SOUND_FILE), and a WAV file whose header
   claims more than the file holds is refused.
"""

import math
import os
import reprlib
import struct
from functools import lru_cache

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.utils import logging

logger = logging.get_logger(__name__)

# --- Shared: from here to the end mark the two byte processors are equal letter for letter                          ---
# --- (tests/models/test_shared_code.py holds them so: a model's folder holds one of them, a question has one answer). ---

PADDING_ID = 256  # one past the largest byte: the model's padding row

# The released models read 0.15 MB at most; the bounds leave room for any model that can be computed, and keep memory below
# 1.5 GB.
MAX_BYTES = 2**25  # of one input, as the model reads it: it takes 16 bytes of memory for each
MAX_BATCH = 2**26  # bytes and padding of a batch in which there is more padding than bytes

PADDING_WARNING = (
    "Inputs of unequal lengths were padded to one batch. A model with mask_padding=False (as released) lets padding take part, "
    "which moves the scores: give it one input at a time (batch size 1), or use a model trained with mask_padding=True."
)

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 120


def shown(value):
    """A value as it stands in an error: `repr`, cut where it is long, without control characters."""
    return _brief.repr(value)


def as_byte_array(content, what):
    """(S,) uint8 of a `bytes`-like object; an empty or too long one is an error that names `what`."""
    try:
        data = np.frombuffer(content, dtype=np.uint8)
    except (ValueError, BufferError) as error:  # numpy's words for 0 bytes, and for a memoryview with gaps
        size = memoryview(content).nbytes
        raise ValueError(
            f"{what} is empty: 0 bytes; at least 1 is needed" if size == 0 else f"{what} cannot be read: {error}"
        ) from error
    check_length(len(data), what)
    return data


def check_length(length, what):
    if length == 0:
        raise ValueError(f"{what} is empty: 0 bytes; at least 1 is needed")
    if length > MAX_BYTES:
        raise ValueError(f"{what} has {length:,} bytes; accepted: at most {MAX_BYTES:,}")


def read_file(path, most=MAX_BYTES):
    """(S,) uint8 of a whole file, of `most` bytes or fewer."""
    if not os.path.isfile(path):
        raise ValueError(
            f"no such file: {shown(os.fspath(path))}; accepted: the path of a local file, or its content as bytes"
        )
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)  # whatever the file's size is said to be
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ValueError(f"file {shown(os.fspath(path))} cannot be read: {error.strerror}") from error
    if len(content) == 0:
        raise ValueError(f"file {shown(os.fspath(path))} is empty: 0 bytes; at least 1 is needed")
    if len(content) > most:
        raise ValueError(f"file {shown(os.fspath(path))} has {size:,} bytes; accepted: at most {most:,}")
    return np.frombuffer(content, dtype=np.uint8)


def pad_batch(rows, return_tensors=None):
    """Pads byte sequences with PADDING_ID to the longest; warns once where lengths differ.

    Args:
        rows: list of (S_i,) uint8.
        return_tensors: "pt", "np" or None (lists of one array per row).

    Returns:
        BatchFeature with `input_ids` (B, S) int64, bytes or PADDING_ID, and `attention_mask` (B, S) int64, 1 on bytes.
    """
    if return_tensors not in (None, "pt", "np"):
        raise ValueError(f"return_tensors must be None, 'pt' or 'np', got {shown(return_tensors)}")
    lengths = [len(row) for row in rows]
    padded = len(rows) * max(lengths)
    if padded > max(MAX_BATCH, 2 * sum(lengths)):
        raise ValueError(
            f"{len(rows)} inputs of {min(lengths):,} to {max(lengths):,} bytes make a batch of {padded:,}, mostly padding; split it"
        )
    if min(lengths) < max(lengths):
        logger.warning_once(PADDING_WARNING)
    input_ids = np.full((len(rows), max(lengths)), PADDING_ID, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for ids, mask, row in zip(input_ids, attention_mask, rows):
        ids[: len(row)], mask[: len(row)] = row, 1
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if return_tensors == "pt":
        batch = {name: torch.from_numpy(array) for name, array in batch.items()}
    elif return_tensors is None:
        batch = {name: list(array) for name, array in batch.items()}
    return BatchFeature(data=batch)


def warn_of_padding(model, inputs):
    """Warns once where a pipeline's batch is padded for a model in which padding takes part."""
    mask = inputs.get("attention_mask")
    if mask is not None and not model.config.mask_padding and bool((mask == 0).any()):
        logger.warning_once(PADDING_WARNING)


def tensor_to_array(tensor):
    """A dense tensor of any device as a numpy array; bfloat16, which numpy does not have, as float32."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        kind = (
            "a meta"
            if tensor.is_meta
            else "a nested"
            if tensor.is_nested
            else f"a {tensor.layout}"
            if tensor.layout != torch.strided
            else "a quantised"
        )
        raise ValueError(f"got {kind} tensor; accepted: dense tensors that hold their values")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


# --- End of what the two files share ---


MAX_SOUND_FILE = 2**26  # bytes of a file that is decoded
MAX_SAMPLING_RATE = 10_000_000
MAX_RESAMPLING = 2**24  # (rate / g) * (other rate / g), g their common divisor: the size of a resampling filter's table
OVERSHOOT = (
    8  # what float samples may reach: encoders overshoot 1 a little; integers that were cast to floats are far beyond
)

FILE_ENCODINGS = ("WAV", "MP3")
SAMPLE_DTYPES = ("uint8", "int16", "int32", "float32")

WAVE_FORMAT_PCM = 1
WAVE_FORMAT_IEEE_FLOAT = 3
WAVE_FORMAT_EXTENSIBLE = 0xFFFE  # the real format stands in the first two bytes of a GUID further on


# --- waveforms --------------------------------------------------------------------------------------------------------


def to_mono(waveform, num_samples=None):
    """One waveform as (S,) float32.

    Args:
        waveform: (S,), (C, S) or (S, C) floats with C 1 or 2; two channels are averaged. An array, tensor or list.
        num_samples: S; the end is cut off, or padded with silence. None leaves the length as it is.
    """
    samples = float_samples(waveform)
    if samples.ndim == 2 and samples.shape[0] not in (1, 2):
        samples = samples.T
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[0] not in (1, 2)):
        raise ValueError(
            f"waveform has shape {np.shape(waveform)}; accepted: (samples,), or one or two channels as (channels, samples) or (samples, channels)"
        )
    if samples.size == 0:
        raise ValueError(f"waveform is empty: shape {np.shape(waveform)}; at least 1 sample is needed")
    samples = samples[..., :num_samples]
    check_length(samples.shape[-1], "waveform, in samples,")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        samples = samples.astype(np.float32)
    check_samples(samples)
    if samples.ndim == 2:
        samples = samples[0] if len(samples) == 1 else (samples[0] + samples[1]) / np.float32(2)
    return samples if num_samples is None else np.pad(samples, (0, num_samples - len(samples)))


def float_samples(waveform):
    """A waveform as a numpy array of floats of whatever precision it has."""
    try:
        samples = tensor_to_array(waveform) if isinstance(waveform, torch.Tensor) else np.asarray(waveform)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"cannot read a waveform: {' '.join(str(error).split())[:200]}") from error
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"waveform has dtype {samples.dtype}; accepted: floats in [-1, 1] (divide int16 samples by 32768)"
        )
    return samples


def check_samples(samples):
    if not np.isfinite(samples).all():
        raise ValueError("waveform holds values that are not finite (NaN, infinity, or beyond float32)")
    peak = np.abs(samples).max()
    if peak > OVERSHOOT:
        raise ValueError(f"waveform reaches {peak:.6g}; accepted: floats in [-1, 1] (divide int16 samples by 32768)")


def quantise(samples, sample_dtype):
    """(S,) float32 in [-1, 1] as samples of that type: (x+1)*255/2, x*(2**15-1), x*(2**31-1) or x, cut towards zero."""
    if sample_dtype == "float32":
        return samples.astype("<f4")
    peak = np.abs(samples).max()
    if peak > 1:
        raise ValueError(
            f"waveform reaches {peak:.6g}; sample_dtype {sample_dtype!r} holds values in [-1, 1]: scale or clip it first"
        )
    if sample_dtype == "uint8":
        return ((samples + np.float32(1)) * np.float32(255) / np.float32(2)).astype("u1")
    if sample_dtype == "int16":
        return (samples * np.float32(2**15 - 1)).astype("<i2")
    scaled = samples * np.float32(2**31 - 1)  # float32 has no 2**31 - 1: this multiplies by 2**31
    return np.where(scaled >= 2.0**31, 2**31 - 1, scaled.astype(np.int64)).astype("<i4")


def encode_wav(samples, sampling_rate):
    """(S,) samples (uint8, int16, int32 or float32, mono) as the bytes of a WAV file.

    Value comments for 16,000 float32 samples: RIFF 64050 WAVE | fmt 18: 3 1 16000 64000 4 32 0 | fact 4: 16000 | data 64000
    """
    width = samples.dtype.itemsize
    is_float = samples.dtype.kind == "f"
    layout = (
        WAVE_FORMAT_IEEE_FLOAT if is_float else WAVE_FORMAT_PCM,
        1,
        sampling_rate,
        sampling_rate * width,
        width,
        8 * width,
    )
    chunks = [(b"fmt ", struct.pack("<HHIIHH", *layout) + (struct.pack("<H", 0) if is_float else b""))]
    if is_float:
        chunks.append((b"fact", struct.pack("<I", len(samples))))
    chunks.append((b"data", samples.tobytes()))
    body = b"WAVE"
    for name, content in chunks:
        body += (
            name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        )  # chunks start on even bytes
    return b"RIFF" + struct.pack("<I", len(body)) + body


def read_chunks(content):
    """The chunks of a RIFF file: name -> a view of the content.

    Raises:
        ValueError: the file claims to be longer than it is, or a chunk does: cut short, or streamed without its length.
    """
    view, chunks, position = memoryview(content), {}, 12
    (claimed,) = struct.unpack_from("<I", view, 4)
    if claimed > len(view):
        raise ValueError(
            f"damaged WAV file: it claims {claimed:,} bytes and has {len(view):,}; write it anew with its true length"
        )
    while position + 8 <= min(8 + claimed, len(view)):
        name, size = struct.unpack_from("<4sI", view, position)
        if position + 8 < len(view) < position + 8 + size:
            raise ValueError(
                f"damaged WAV file: chunk {name!r} claims {size:,} bytes and has {len(view) - position - 8:,}; write it anew with its true length"
            )
        chunks.setdefault(name, view[position + 8 : position + 8 + size])
        position += 8 + size + size % 2
    return chunks


def decode_wav(content):
    """The waveform in a WAV file of one or two channels of 8, 16, 24 or 32-bit PCM, or of 32 or 64-bit floats.

    Returns:
        ((channels, S) float32 in [-1, 1), sampling rate in Hz)
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError(f"not a WAV file: it starts with {bytes(content[:12])!r}, a WAV file with b'RIFF....WAVE'")
    chunks = read_chunks(content)
    layout, data = chunks.get(b"fmt ", b""), chunks.get(b"data", b"")
    if len(layout) < 16 or not len(data):
        raise ValueError(
            f"damaged WAV file: {len(layout)} bytes of format and {len(data)} bytes of samples; at least 16 and 1 are needed"
        )
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", layout)
    if kind == WAVE_FORMAT_EXTENSIBLE and len(layout) >= 26:
        kind = struct.unpack_from("<H", layout, 24)[0]
    if channels not in (1, 2) or not 1 <= rate <= MAX_SAMPLING_RATE:
        raise ValueError(
            f"WAV file of {channels} channels at {rate} Hz; accepted: 1 or 2, at 1 to {MAX_SAMPLING_RATE:,} Hz"
        )
    samples = dequantise(data, kind, bits)
    if len(samples) < channels:
        raise ValueError(f"damaged WAV file: {len(samples)} samples for {channels} channels")
    whole = len(samples) // channels * channels
    return samples[:whole].reshape(-1, channels).T, rate


def dequantise(data, kind, bits):
    """The samples in a WAV file's data as (S,) float32: integers over 2**(bits-1), as every audio library reads them."""
    data = data[: len(data) // max(bits // 8, 1) * max(bits // 8, 1)]
    if kind == WAVE_FORMAT_PCM and bits == 8:
        return (np.frombuffer(data, "u1").astype(np.float32) - 128) / 128
    if kind == WAVE_FORMAT_PCM and bits in (16, 32):
        return np.frombuffer(data, f"<i{bits // 8}").astype(np.float32) / np.float32(2.0 ** (bits - 1))
    if kind == WAVE_FORMAT_PCM and bits == 24:
        # three bytes go to the top of a 32-bit integer, which carries the sign
        wide = np.zeros((len(data) // 3, 4), dtype="u1")
        wide[:, 1:] = np.frombuffer(data, "u1").reshape(-1, 3)
        return wide.view("<i4").reshape(-1).astype(np.float32) / np.float32(2.0**31)
    if kind == WAVE_FORMAT_IEEE_FLOAT and bits in (32, 64):
        with np.errstate(over="ignore", invalid="ignore"):  # `to_mono` refuses what is not finite
            return np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
    raise ValueError(
        f"WAV file of format {kind} with {bits} bits; accepted: PCM (1) of 8, 16, 24 or 32 bits, float (3) of 32 or 64"
    )


def check_resampling(rate, wanted):
    """Refuses a sampling rate that nothing can be resampled from, or only through a table of gigabytes."""
    number = isinstance(rate, (int, np.integer)) and not isinstance(rate, bool) and 1 <= rate <= MAX_SAMPLING_RATE
    common = math.gcd(int(rate), wanted) if number else 1
    if not number or (int(rate) // common) * (wanted // common) > MAX_RESAMPLING:
        raise ValueError(f"audio at {shown(rate)} Hz cannot be resampled to {wanted} Hz here; resample it first")


def as_waveform_list(audio):
    """A batch as a list. One waveform (array, tensor, list of numbers), one path or one bytes object is a batch of one."""
    is_batch = isinstance(audio, (list, tuple)) and not (audio and isinstance(audio[0], (int, float, np.number)))
    if not is_batch:
        return [audio]
    if not audio:
        raise ValueError("got an empty list; at least one waveform or file is needed")
    return list(audio)


# --- the feature extractor --------------------------------------------------------------------------------------------

ARGUMENTS = ("sampling_rate", "file_encoding", "sample_dtype", "num_samples")
# What transformers writes into, or passes on from, preprocessor_config.json beside the arguments.
METADATA = ("auto_map", "processor_class", "feature_extractor_type", "image_processor_type")


def check_positive(name, value, most, unit=""):
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer{unit}, got {shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}{unit}, got {shown(value)}")


class ByteFormerFeatureExtractor(FeatureExtractionMixin):
    r"""Turns waveforms or audio files into the bytes that a ByteFormer was trained on.

    Args:
        sampling_rate (`int`): Hz.
        file_encoding (`str`, *optional*): "WAV": waveforms are written as WAV. "MP3" or None: the model reads files as they
            are, and waveforms are refused (nothing here encodes MP3).
        sample_dtype (`str`): "uint8", "int16", "int32" or "float32", the samples of the WAV.
        num_samples (`int`, *optional*): To how many samples a waveform is cut, or padded with silence at its end, before it
            is encoded; 16000 in the released models. None: as long as it is. Files that are read as they are stay so.

    Example:

    ```python
    >>> extractor = ByteFormerFeatureExtractor(sampling_rate=16000, sample_dtype="float32")
    >>> inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")   # as WAV
    >>> inputs = extractor("speech.wav", return_tensors="pt")                    # the file's own bytes
    >>> inputs = extractor(extractor.open_recording("speech.wav"), return_tensors="pt")   # decoded, and written by the recipe
    >>> logits = model(**inputs).logits
    ```
    """

    model_input_names = ["input_ids", "attention_mask"]
    # Read by transformers' pipelines to batch results (`batch_size=...`).
    padding_value = PADDING_ID
    padding_side = "right"

    def __init__(self, sampling_rate=16000, file_encoding="WAV", sample_dtype="float32", num_samples=None, **kwargs):
        unknown = sorted(set(kwargs) - set(METADATA))
        if unknown:
            raise ValueError(
                f"{type(self).__name__} does not know {', '.join(name[:40] for name in unknown[:3])}; known: {', '.join(ARGUMENTS)}"
            )
        super().__init__()
        check_positive("sampling_rate", sampling_rate, MAX_SAMPLING_RATE, " (Hz)")
        if file_encoding is not None and file_encoding not in FILE_ENCODINGS:
            raise ValueError(
                f"unknown file_encoding {shown(file_encoding)}; accepted: None, {', '.join(FILE_ENCODINGS)}"
            )
        if sample_dtype not in SAMPLE_DTYPES:
            raise ValueError(f"unknown sample_dtype {shown(sample_dtype)}; accepted: {', '.join(SAMPLE_DTYPES)}")
        if num_samples is not None:
            check_positive("num_samples", num_samples, MAX_BYTES)
        self.sampling_rate = int(sampling_rate)
        self.file_encoding = file_encoding
        self.sample_dtype = sample_dtype
        self.num_samples = None if num_samples is None else int(num_samples)

    @classmethod
    def from_dict(cls, feature_extractor_dict, **kwargs):
        """As the base class has it, on every release: arguments in `kwargs` win, keys that are no arguments are left out."""
        return_unused_kwargs = kwargs.pop("return_unused_kwargs", False)
        arguments = {key: value for key, value in feature_extractor_dict.items() if key in ARGUMENTS}
        arguments.update({key: kwargs.pop(key) for key in ARGUMENTS if key in kwargs})
        extractor = cls(**arguments)
        return (extractor, kwargs) if return_unused_kwargs else extractor

    def __call__(self, raw_speech, sampling_rate=None, return_tensors=None):
        """Makes a padded batch of byte sequences.

        Args:
            raw_speech: One of these, or a list of them: a waveform, (S,), (C, S) or (S, C) floats in [-1, 1] with one or
                two channels, as array, tensor or list of numbers; `bytes` of a file; a file's path (`str` or `Path`). An
                array of two dimensions is one waveform with channels, never a batch.
            sampling_rate: Hz, of the waveforms. None takes it to be the configured one.
            return_tensors: "pt", "np" or None (lists of arrays).

        Returns:
            BatchFeature with `input_ids` (B, S) int64, bytes or 256 as padding, and `attention_mask` (B, S) int64.

        Raises:
            ValueError: another sampling rate, more than two channels, an empty or non-finite waveform, an empty or missing
                file, or samples beyond [-1, 1] (far beyond, for `sample_dtype` "float32").
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"the model reads audio at {self.sampling_rate} Hz, got sampling_rate={shown(sampling_rate)}; resample the waveform first"
            )
        return pad_batch([self.source_bytes(audio) for audio in as_waveform_list(raw_speech)], return_tensors)

    def source_bytes(self, audio):
        """(S,) uint8 of one input: a file's own bytes, or a waveform written as WAV."""
        if isinstance(audio, (bytes, bytearray, memoryview)):
            return as_byte_array(audio, "the bytes object")
        if isinstance(audio, (str, os.PathLike)):
            return read_file(audio)
        if not isinstance(audio, (np.ndarray, torch.Tensor, list, tuple)):
            raise ValueError(
                f"cannot read a waveform from {type(audio).__name__}; accepted: array, tensor, list of numbers, bytes or a file's path"
            )
        if self.file_encoding != "WAV":
            raise ValueError(
                f"file_encoding is {self.file_encoding!r}: this model reads files as they are; give a file's path or its bytes, not a waveform"
            )
        samples = quantise(to_mono(audio, self.num_samples), self.sample_dtype)
        return as_byte_array(encode_wav(samples, self.sampling_rate), "waveform as WAV")

    def open_recording(self, source):
        """The waveform in a WAV file, which the extractor then writes anew by the recipe, as the pipeline does.

        Args:
            source: path or `bytes` of the file.

        Returns:
            (C, S) float32, C 1 or 2.

        Raises:
            ValueError: another format or sampling rate, or a damaged file.
        """
        channels, rate = decode_wav(sound_file(source))
        if rate != self.sampling_rate:
            raise ValueError(
                f"the model reads audio at {self.sampling_rate} Hz, the file has {rate} Hz; resample it first"
            )
        return channels


def sound_file(source):
    """The bytes of a sound file, given as a path or as `bytes`, whose size is bounded."""
    if isinstance(source, (str, os.PathLike)):
        return read_file(source, MAX_SOUND_FILE).tobytes()
    if len(source) > MAX_SOUND_FILE:
        raise ValueError(f"the bytes object has {len(source):,} bytes; accepted: at most {MAX_SOUND_FILE:,}")
    return bytes(source)


# --- the pipeline -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def audio_classification_pipeline():
    # Made on demand: importing the library's pipelines takes seconds, and only pipeline() needs them.
    from transformers import AudioClassificationPipeline

    class ByteFormerAudioClassificationPipeline(AudioClassificationPipeline):
        """`pipeline("audio-classification", model=folder, trust_remote_code=True)`.

        Takes a path, `bytes`, an array at the model's sampling rate, or {"array": ..., "sampling_rate": ...}. WAV files
        need no ffmpeg: they are decoded here and written anew by the recipe. Where the recipe is "MP3" or None, a file is
        classified as it is. Other files and other sampling rates go the library's way (ffmpeg, torchaudio). Sounds of
        unequal lengths in one batch are padded, which moves the scores of a model with `mask_padding=False`: a warning says so.
        """

        def __init__(self, model, *args, feature_extractor=None, **kwargs):
            if (
                feature_extractor is None
            ):  # older releases of pipeline() find only the extractors that the library ships
                revision = getattr(model.config, "_commit_hash", None) or "main"
                feature_extractor = ByteFormerFeatureExtractor.from_pretrained(
                    model.config.name_or_path, revision=revision
                )
            super().__init__(model, *args, feature_extractor=feature_extractor, **kwargs)

        def check_model_type(self, supported_models):
            """Nothing to check: the library's list knows its own models only, and would log an error for this one."""

        def preprocess(self, inputs):
            extractor = self.feature_extractor
            is_address = isinstance(inputs, str) and inputs.startswith(("http://", "https://"))
            if isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview)) and not is_address:
                if extractor.file_encoding != "WAV":
                    return extractor(inputs, return_tensors="pt")
                inputs = sound_file(inputs)
                if inputs[:4] == b"RIFF":
                    channels, rate = decode_wav(inputs)
                    if rate == extractor.sampling_rate:
                        return extractor(channels, return_tensors="pt")
                    inputs = {"array": to_mono(channels), "sampling_rate": rate}
            if (
                isinstance(inputs, dict)
                and inputs.get("sampling_rate", extractor.sampling_rate) != extractor.sampling_rate
            ):
                check_resampling(inputs["sampling_rate"], extractor.sampling_rate)
            return super().preprocess(inputs)

        def _forward(self, model_inputs):
            warn_of_padding(self.model, model_inputs)
            return super()._forward(model_inputs)

    return ByteFormerAudioClassificationPipeline


def __getattr__(name):
    if name == "ByteFormerAudioClassificationPipeline":
        return audio_classification_pipeline()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["ByteFormerFeatureExtractor"]

ByteFormerFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
