# SPDX-License-Identifier: Apache-2.0
"""ByteFormer's feature extractor: waveforms, or audio files, to the bytes that the model reads.

Source: the audio experiments of Horton et al., "Bytes Are All You Need", arXiv 2306.00238.

1. Waveforms become a WAV file: RIFF, little endian, mono. uint8, int16 and int32 are written as integer PCM with a 44-byte
   header; float32 as WAVE_FORMAT_IEEE_FLOAT with the 18-byte format chunk and the `fact` chunk that the standard asks of
   everything but PCM, 58 bytes in all.
2. Integer samples are the scaled waveform cut towards zero, as a cast does, not rounded: the published files hold those.
3. `bytes` and file paths, WAV or MP3, are taken as they are: nothing is decoded or resampled.
4. `pipeline("audio-classification")` decodes a WAV file first and writes it anew by the recipe, so that any WAV of the right
   sampling rate is read as the model was trained; where the recipe is "MP3", the file's own bytes go in.
"""

import os
import struct
from functools import lru_cache

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin


PADDING_ID = 256  # one past the largest byte: the model's padding row

FILE_ENCODINGS = ("WAV", "MP3")
SAMPLE_DTYPES = ("uint8", "int16", "int32", "float32")

WAVE_FORMAT_PCM = 1
WAVE_FORMAT_IEEE_FLOAT = 3
WAVE_FORMAT_EXTENSIBLE = 0xFFFE  # the real format stands in the first two bytes of a GUID further on


# --- waveforms --------------------------------------------------------------------------------------------------------


def to_mono(waveform):
    """One waveform as (S,) float64.

    Args:
        waveform: (S,), (C, S) or (S, C) floats with C 1 or 2; two channels are averaged. An array, tensor or list.
    """
    if isinstance(waveform, torch.Tensor):
        waveform = waveform.detach().cpu()
        waveform = (waveform.float() if waveform.dtype == torch.bfloat16 else waveform).numpy()  # numpy has no bfloat16
    samples = np.asarray(waveform)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"waveform has dtype {samples.dtype}; accepted: floats in [-1, 1] (divide int16 samples by 32768)")
    if samples.ndim == 2 and samples.shape[0] not in (1, 2):
        samples = samples.T
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[0] not in (1, 2)):
        raise ValueError(f"waveform has shape {np.shape(waveform)}; accepted: (samples,), or one or two channels as (channels, samples) or (samples, channels)")
    if samples.size == 0:
        raise ValueError(f"waveform is empty: shape {np.shape(waveform)}; at least 1 sample is needed")
    if not np.isfinite(samples).all():
        raise ValueError("waveform holds values that are not finite (NaN or infinity)")
    samples = samples.astype(np.float64)
    return samples if samples.ndim == 1 else samples.mean(axis=0)


def quantise(samples, sample_dtype):
    """(S,) floats in [-1, 1] as samples of that type: (x+1)*255/2, x*(2**15-1), x*(2**31-1) or x, cut towards zero."""
    if sample_dtype == "float32":
        return samples.astype("<f4")
    peak = np.abs(samples).max()
    if peak > 1:
        raise ValueError(f"waveform reaches {peak:.6g}; sample_dtype {sample_dtype!r} holds values in [-1, 1]: scale or clip it first")
    if sample_dtype == "uint8":
        return ((samples + 1) * 255 / 2).astype("u1")
    bits = {"int16": 16, "int32": 32}[sample_dtype]
    return (samples * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}")


def encode_wav(samples, sampling_rate):
    """(S,) samples (uint8, int16, int32 or float32, mono) as the bytes of a WAV file.

    Value comments for 16,000 float32 samples: RIFF 64050 WAVE | fmt 18: 3 1 16000 64000 4 32 0 | fact 4: 16000 | data 64000
    """
    width = samples.dtype.itemsize
    is_float = samples.dtype.kind == "f"
    layout = (WAVE_FORMAT_IEEE_FLOAT if is_float else WAVE_FORMAT_PCM, 1, sampling_rate, sampling_rate * width, width, 8 * width)
    chunks = [(b"fmt ", struct.pack("<HHIIHH", *layout) + (struct.pack("<H", 0) if is_float else b""))]
    if is_float:
        chunks.append((b"fact", struct.pack("<I", len(samples))))
    chunks.append((b"data", samples.tobytes()))
    body = b"WAVE"
    for name, content in chunks:
        body += name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)  # chunks start on even bytes
    return b"RIFF" + struct.pack("<I", len(body)) + body


def read_chunks(content):
    """The chunks of a RIFF file: name -> content. A chunk that claims more than there is gets what there is."""
    chunks, position = {}, 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        chunks.setdefault(name, content[position + 8 : position + 8 + size])
        position += 8 + size + size % 2
    return chunks


def decode_wav(content):
    """The waveform in a WAV file of 8, 16, 24 or 32-bit PCM, or of 32 or 64-bit floats.

    Returns:
        ((channels, S) float32 in [-1, 1), sampling rate in Hz)
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError(f"not a WAV file: it starts with {bytes(content[:12])!r}, a WAV file with b'RIFF....WAVE'")
    chunks = read_chunks(content)
    layout, data = chunks.get(b"fmt ", b""), chunks.get(b"data", b"")
    if len(layout) < 16 or not data:
        raise ValueError(f"damaged WAV file: {len(layout)} bytes of format and {len(data)} bytes of samples; at least 16 and 1 are needed")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", layout)
    if kind == WAVE_FORMAT_EXTENSIBLE and len(layout) >= 26:
        kind = struct.unpack_from("<H", layout, 24)[0]
    samples = dequantise(data, kind, bits)
    if channels < 1 or len(samples) < channels:
        raise ValueError(f"damaged WAV file: {len(samples)} samples for {channels} channels")
    whole = len(samples) // channels * channels
    return samples[:whole].reshape(-1, channels).T, rate


def dequantise(data, kind, bits):
    """The samples in a WAV file's data as (S,) float32: integers over 2**(bits-1), as every audio library reads them."""
    data = data[: len(data) // max(bits // 8, 1) * max(bits // 8, 1)]
    if kind == WAVE_FORMAT_PCM and bits == 8:
        return (np.frombuffer(data, "u1").astype(np.float32) - 128) / 128
    if kind == WAVE_FORMAT_PCM and bits in (16, 32):
        return (np.frombuffer(data, f"<i{bits // 8}") / 2.0 ** (bits - 1)).astype(np.float32)
    if kind == WAVE_FORMAT_PCM and bits == 24:
        # three bytes go to the top of a 32-bit integer, which carries the sign
        wide = np.zeros((len(data) // 3, 4), dtype="u1")
        wide[:, 1:] = np.frombuffer(data, "u1").reshape(-1, 3)
        return (wide.view("<i4").reshape(-1) / 2.0**31).astype(np.float32)
    if kind == WAVE_FORMAT_IEEE_FLOAT and bits in (32, 64):
        return np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
    raise ValueError(f"WAV file of format {kind} with {bits} bits; accepted: PCM (1) of 8, 16, 24 or 32 bits, float (3) of 32 or 64")


def as_waveform_list(audio):
    """A batch as a list. One waveform (array, tensor, list of numbers), one path or one bytes object is a batch of one."""
    is_batch = isinstance(audio, (list, tuple)) and not (audio and isinstance(audio[0], (int, float, np.number)))
    if not is_batch:
        return [audio]
    if not audio:
        raise ValueError("got an empty list; at least one waveform or file is needed")
    return list(audio)


# --- bytes (as in image_processing_byteformer.py; a model's folder holds only one of the two files) --------------------


def as_byte_array(content, what):
    """(S,) uint8 of a `bytes`-like object; an empty one is an error that names `what`."""
    data = np.frombuffer(content, dtype=np.uint8)
    if len(data) == 0:
        raise ValueError(f"{what} is empty: 0 bytes; at least 1 is needed")
    return data


def read_file(path):
    """(S,) uint8 of a whole file."""
    if not os.path.isfile(path):
        raise ValueError(f"no such file: {os.fspath(path)!r}; accepted: the path of a local file, or its content as bytes")
    with open(path, "rb") as file:
        return as_byte_array(file.read(), f"file {os.fspath(path)!r}")


def pad_batch(rows, return_tensors=None):
    """(S_i,) uint8 rows, padded with PADDING_ID to the longest: BatchFeature of `input_ids` and `attention_mask`, (B, S) int64."""
    if return_tensors not in (None, "pt", "np"):
        raise ValueError(f"return_tensors must be None, 'pt' or 'np', got {return_tensors!r}")
    lengths = [len(row) for row in rows]
    input_ids = np.full((len(rows), max(lengths)), PADDING_ID, dtype=np.int64)
    for ids, row in zip(input_ids, rows):
        ids[: len(row)] = row
    attention_mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if return_tensors == "pt":
        batch = {name: torch.from_numpy(array) for name, array in batch.items()}
    elif return_tensors is None:
        batch = {name: list(array) for name, array in batch.items()}
    return BatchFeature(data=batch)


# --- the feature extractor --------------------------------------------------------------------------------------------

ARGUMENTS = ("sampling_rate", "file_encoding", "sample_dtype")
# What transformers writes into, or passes on from, preprocessor_config.json beside the arguments.
METADATA = ("auto_map", "processor_class", "feature_extractor_type", "image_processor_type")


class ByteFormerFeatureExtractor(FeatureExtractionMixin):
    r"""Turns waveforms or audio files into the bytes that a ByteFormer was trained on.

    Args:
        sampling_rate (`int`): Hz.
        file_encoding (`str`, *optional*): "WAV": waveforms are written as WAV. "MP3" or None: the model reads files as they
            are, and waveforms are refused (nothing here encodes MP3).
        sample_dtype (`str`): "uint8", "int16", "int32" or "float32", the samples of the WAV.

    Example:

    ```python
    >>> extractor = ByteFormerFeatureExtractor(sampling_rate=16000, sample_dtype="float32")
    >>> inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")   # as WAV
    >>> inputs = extractor("speech.wav", return_tensors="pt")                    # the file's own bytes
    >>> logits = model(**inputs).logits
    ```
    """

    model_input_names = ["input_ids", "attention_mask"]
    # Read by transformers' pipelines to batch results (`batch_size=...`).
    padding_value = PADDING_ID
    padding_side = "right"

    def __init__(self, sampling_rate=16000, file_encoding="WAV", sample_dtype="float32", **kwargs):
        unknown = sorted(set(kwargs) - set(METADATA))
        if unknown:
            raise ValueError(f"{type(self).__name__} does not know {', '.join(unknown)}; known: {', '.join(ARGUMENTS)}")
        super().__init__()
        if not isinstance(sampling_rate, (int, np.integer)) or isinstance(sampling_rate, bool) or sampling_rate < 1:
            raise ValueError(f"sampling_rate must be a positive integer (Hz), got {sampling_rate!r}")
        if file_encoding is not None and file_encoding not in FILE_ENCODINGS:
            raise ValueError(f"unknown file_encoding {file_encoding!r}; accepted: None, {', '.join(FILE_ENCODINGS)}")
        if sample_dtype not in SAMPLE_DTYPES:
            raise ValueError(f"unknown sample_dtype {sample_dtype!r}; accepted: {', '.join(SAMPLE_DTYPES)}")
        self.sampling_rate = int(sampling_rate)
        self.file_encoding = file_encoding
        self.sample_dtype = sample_dtype

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
                file, or samples beyond [-1, 1] for an integer `sample_dtype`.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"the model reads audio at {self.sampling_rate} Hz, got sampling_rate={sampling_rate}; resample the waveform first")
        return pad_batch([self.source_bytes(audio) for audio in as_waveform_list(raw_speech)], return_tensors)

    def source_bytes(self, audio):
        """(S,) uint8 of one input: a file's own bytes, or a waveform written as WAV."""
        if isinstance(audio, (bytes, bytearray, memoryview)):
            return as_byte_array(audio, "the bytes object")
        if isinstance(audio, (str, os.PathLike)):
            return read_file(audio)
        if not isinstance(audio, (np.ndarray, torch.Tensor, list, tuple)):
            raise ValueError(f"cannot read a waveform from {type(audio).__name__}; accepted: array, tensor, list of numbers, bytes or a file's path")
        if self.file_encoding != "WAV":
            raise ValueError(f"file_encoding is {self.file_encoding!r}: this model reads files as they are; give a file's path or its bytes, not a waveform")
        wav = encode_wav(quantise(to_mono(audio), self.sample_dtype), self.sampling_rate)
        return np.frombuffer(wav, dtype=np.uint8)


# --- the pipeline -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def audio_classification_pipeline():
    # Made on demand: importing the library's pipelines takes seconds, and only pipeline() needs them.
    from transformers import AudioClassificationPipeline

    class ByteFormerAudioClassificationPipeline(AudioClassificationPipeline):
        """`pipeline("audio-classification", model=folder, trust_remote_code=True)`.

        Takes a path, `bytes`, an array at the model's sampling rate, or {"array": ..., "sampling_rate": ...}. WAV files
        need no ffmpeg: they are decoded here and written anew by the recipe. Where the recipe is "MP3" or None, a file is
        classified as it is. Other files and other sampling rates go the library's way (ffmpeg, torchaudio).
        """

        def __init__(self, model, *args, feature_extractor=None, **kwargs):
            if feature_extractor is None:  # older releases of pipeline() find only the extractors that the library ships
                revision = getattr(model.config, "_commit_hash", None) or "main"
                feature_extractor = ByteFormerFeatureExtractor.from_pretrained(model.config.name_or_path, revision=revision)
            super().__init__(model, *args, feature_extractor=feature_extractor, **kwargs)

        def check_model_type(self, supported_models):
            """Nothing to check: the library's list knows its own models only, and would log an error for this one."""

        def preprocess(self, inputs):
            is_address = isinstance(inputs, str) and inputs.startswith(("http://", "https://"))
            if isinstance(inputs, (str, os.PathLike)) and not is_address:
                inputs = read_file(inputs).tobytes()
            if isinstance(inputs, bytes):
                if self.feature_extractor.file_encoding != "WAV":
                    return self.feature_extractor(inputs, return_tensors="pt")
                if inputs[:4] == b"RIFF":
                    channels, rate = decode_wav(inputs)
                    inputs = {"array": to_mono(channels), "sampling_rate": rate}
            return super().preprocess(inputs)

    return ByteFormerAudioClassificationPipeline


def __getattr__(name):
    if name == "ByteFormerAudioClassificationPipeline":
        return audio_classification_pipeline()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["ByteFormerFeatureExtractor"]

ByteFormerFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
