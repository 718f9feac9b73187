"""CoreNet experiment files, nested and flat, image and audio: each gives the configuration and processor that it describes."""

import pytest
import torch
from hubtools.assembly.corenet_config import read_corenet_config
from hubtools.assembly.recipes import load_recipe, recipe_from
from hubtools.errors import UserError

from byteformer import ByteFormerConfig, ByteFormerFeatureExtractor, ByteFormerImageProcessor

TINY = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}

NESTED_JPEG = """
taskname: "ImageNet, JPEG quality 60"
dataset: {category: classification, name: imagenet}
image_augmentation:
  random_resized_crop: {enable: true, size: 224, interpolation: bilinear}
  random_horizontal_flip: {enable: true}
  random_erase: {enable: true, p: 0.25}
  mixup: {enable: true, alpha: 0.8}
  resize: {enable: true, size: 256, interpolation: bicubic}
  center_crop: {enable: true, size: 224}
  pil_save: {enable: true, file_encoding: JPEG, quality: 60}
model:
  classification:
    name: byteformer
    n_classes: 1000
    byteformer:
      mode: tiny
      max_num_tokens: 50000
      conv_kernel_size: 4
      window_sizes: [128]
      dropout: 0.0
      stochastic_dropout: 0.1
  activation: {name: gelu}
"""

FLAT_TIFF = """
model.classification.name: byteformer
model.classification.n_classes: 1000
model.classification.byteformer.mode: tiny
model.classification.byteformer.conv_kernel_size: 32
model.classification.byteformer.max_num_tokens: 50000
model.activation.name: gelu
image_augmentation.resize.enable: true
image_augmentation.resize.size: 256
image_augmentation.resize.interpolation: bicubic
image_augmentation.center_crop.enable: true
image_augmentation.center_crop.size: 224
image_augmentation.pil_save.enable: true
image_augmentation.pil_save.file_encoding: TIFF
"""

MIXED_REVERSE = """
model:
  classification.name: byteformer
  classification:
    n_classes: 1000
    byteformer.mode: tiny
    byteformer: {conv_kernel_size: 32, max_num_tokens: 50000}
model.activation: {name: gelu}
image_augmentation.resize: {enable: true, size: 256, interpolation: bicubic}
image_augmentation:
  center_crop.enable: true
  center_crop.size: 224
  pil_save: {enable: true, file_encoding: JPEG, quality: 100}
  shuffle_bytes: {enable: true, mode: reverse}
"""

OBFUSCATION = """
model: {classification: {name: byteformer, n_classes: 1000, byteformer: {mode: tiny, conv_kernel_size: 32, max_num_tokens: 50000}}, activation: {name: gelu}}
image_augmentation:
  resize: {enable: true, size: 256, interpolation: bicubic}
  center_crop: {enable: true, size: 224}
  pil_save: {enable: true, file_encoding: fHWC}
  random_uniform: {enable: true, width_range: [-20, 20]}
  byte_permutation: {enable: true}
"""

CAMERA = """
model.classification: {name: byteformer, n_classes: 1000}
model.classification.byteformer: {mode: tiny, conv_kernel_size: 4, max_num_tokens: 50000}
model.activation.name: gelu
image_augmentation: {resize: {enable: true, size: 256, interpolation: bicubic}, center_crop: {enable: true, size: 224}, pil_save: {enable: true, file_encoding: fHWC}}
image_augmentation.mask_positions: {enable: true, keep_frac: 0.05}
"""

SMALL_STRIDE = """
model.classification.name: byteformer
model.classification.byteformer.mode: small
model.classification.byteformer.sinusoidal_pos_emb: true
model.classification.byteformer.dropout: 0.2
image_augmentation.pil_save.enable: true
image_augmentation.pil_save.file_encoding: PNG
image_augmentation.shuffle_bytes.enable: true
image_augmentation.shuffle_bytes.mode: stride
image_augmentation.shuffle_bytes.stride: 512
image_augmentation.mask_positions.enable: false
image_augmentation.mask_positions.keep_frac: 0.05
image_augmentation.random_uniform: {enable: false, width_range: [-5, 5]}
image_augmentation.byte_permutation.enable: false
"""

BASE_WINDOWS = """
model:
  classification:
    name: byteformer
    n_classes: 10
    byteformer:
      mode: base
      vocab_size: 257
      window_sizes: [128, 128, 128, 128, 64, 64, 64, 64, 32, 32, 32, 32]
      window_shifts: [0, 64, 0, 64, 0, 32, 0, 32, 0, 16, 0, 16]
      downsample: [false, true, false, true, false, true, false, true, false, true, false, false]
image_augmentation:
  pil_save: {enable: true, file_encoding: fCHW}
  shuffle_bytes: {enable: true, mode: window_shuffle, window_size: 256}
"""

HUGE = f"""
model.classification.name: byteformer
model.classification.byteformer.mode: huge
model.classification.byteformer.window_shifts: {[0, 64] * 16}
model.classification.byteformer.downsample: {[True] * 4 + [False] * 28}
image_augmentation.pil_save: {{enable: false, file_encoding: JPEG}}
"""

AUDIO_WAV = """
taskname: Speech Commands
model:
  audio_classification: {name: byteformer}
  classification:
    name: byteformer
    n_classes: 12
    byteformer: {mode: tiny, conv_kernel_size: 32, max_num_tokens: 50000}
  activation: {name: gelu}
audio_augmentation:
  noise: {enable: true, levels: [0, -15]}
  set_fixed_length: {enable: true}
  torchaudio_save: {enable: true, format: wav, encoding_dtype: float32}
"""

AUDIO_MP3_FLAT = """
model.audio_classification.name: byteformer
model.classification.name: byteformer
model.classification.n_classes: 12
model.classification.byteformer.mode: tiny
model.classification.byteformer.conv_kernel_size: 4
model.classification.byteformer.window_sizes: [32]
model.classification.byteformer.window_shifts: [0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64]
model.classification.byteformer.max_num_tokens: 50000
model.activation.name: gelu
audio_augmentation.torchaudio_save.enable: true
audio_augmentation.torchaudio_save.format: mp3
audio_augmentation.set_fixed_length: {enable: true, length: 16000}
"""

AUDIO_INT16_MIXED = """
model: {audio_classification: , classification: {byteformer: {window_sizes: [64]}}}
audio_augmentation.torchaudio_save: {enable: true, encoding_dtype: int16}
"""

DEFAULTS = """
model: {classification: {name: byteformer, byteformer: {norm_layer: layer_norm_fp32}}, activation: {name: leaky_relu}}
image_augmentation:
  resize: {enable: true}
  center_crop: {enable: true, size: [192]}
  pil_save: {enable: true}
  shuffle_bytes: {enable: true}
  mask_positions: {enable: true}
  random_uniform: {enable: true}
"""

EXPLICIT = """
model: {classification: {name: byteformer}, activation: {name: leaky_relu, neg_slope: 0.2}}
image_augmentation:
  resize: {enable: true, size: [250, 300], interpolation: nearest}
  center_crop: {enable: true, size: [192, 200]}
"""

AUDIO_LENGTH = """
model: {audio_classification: {name: byteformer}, classification: {name: byteformer}, activation: {name: hard_swish}}
audio_augmentation: {set_fixed_length: {enable: true, length: 8000}}
"""

AUDIO_LENGTH_OFF = AUDIO_LENGTH.replace("enable: true", "enable: false")

MINIMAL = "model: {classification: {name: byteformer}}"

IMAGE = {"do_resize": True, "size": 256, "do_center_crop": True, "crop_size": 224}
RELEASED = {**TINY, "max_position_embeddings": 50000, "hidden_act": "gelu", "num_labels": 1000}
AS_GIVEN = {"do_resize": False, "do_center_crop": False}

# name -> (file, audio?, configuration, processor): all that the file determines; the rest must be the classes' own defaults
CASES = {
    "nested jpeg": (
        NESTED_JPEG,
        False,
        {**RELEASED, "conv_kernel_size": 4, "window_sizes": [128], "drop_path_rate": 0.1},
        {**IMAGE, "file_encoding": "JPEG", "quality": 60},
    ),
    "flat tiff": (FLAT_TIFF, False, {**RELEASED, "conv_kernel_size": 32}, {**IMAGE, "file_encoding": "TIFF"}),
    "mixed reverse": (
        MIXED_REVERSE,
        False,
        {**RELEASED, "conv_kernel_size": 32},
        {**IMAGE, "file_encoding": "JPEG", "quality": 100, "byte_order": "reverse"},
    ),
    "obfuscation": (
        OBFUSCATION,
        False,
        {**RELEASED, "conv_kernel_size": 32},
        {**IMAGE, "file_encoding": "fHWC", "noise_range": [-20, 20], "permute_bytes": True},
    ),
    "camera": (
        CAMERA,
        False,
        {**RELEASED, "conv_kernel_size": 4},
        {**IMAGE, "file_encoding": "fHWC", "keep_fraction": 0.05},
    ),
    "small, stride, blocks off": (
        SMALL_STRIDE,
        False,
        {
            "hidden_size": 384,
            "num_attention_heads": 6,
            "intermediate_size": 1536,
            "sinusoidal_pos_emb": True,
            "hidden_dropout_prob": 0.2,
            "hidden_act": "relu",
            "num_labels": 1000,
        },
        {**AS_GIVEN, "file_encoding": "PNG", "byte_order": "stride", "byte_order_stride": 512},
    ),
    "base, windows per layer": (
        BASE_WINDOWS,
        False,
        {
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "window_sizes": [128] * 4 + [64] * 4 + [32] * 4,
            "window_shifts": [0, 64, 0, 64, 0, 32, 0, 32, 0, 16, 0, 16],
            "downsample": [False, True] * 5 + [False, False],
            "hidden_act": "relu",
            "num_labels": 10,
        },
        {**AS_GIVEN, "file_encoding": "fCHW", "byte_order": "window_shuffle", "byte_order_window": 256},
    ),
    "huge": (
        HUGE,
        False,
        {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
            "intermediate_size": 5120,
            "window_shifts": [0, 64] * 16,
            "downsample": [True] * 4 + [False] * 28,
            "hidden_act": "relu",
            "num_labels": 1000,
        },
        AS_GIVEN,
    ),
    "audio wav": (
        AUDIO_WAV,
        True,
        {**RELEASED, "conv_kernel_size": 32, "num_labels": 12},
        {"file_encoding": "WAV", "sample_dtype": "float32", "num_samples": 16000},
    ),
    "audio mp3, flat": (
        AUDIO_MP3_FLAT,
        True,
        {**RELEASED, "conv_kernel_size": 4, "window_sizes": [32], "window_shifts": [0] * 12, "num_labels": 12},
        {"file_encoding": "MP3", "num_samples": 16000},
    ),
    "audio int16, mixed": (
        AUDIO_INT16_MIXED,
        True,
        {**TINY, "window_sizes": [64], "hidden_act": "relu", "num_labels": 1000},
        {"sample_dtype": "int16"},
    ),
    "what CoreNet takes for absent keys": (
        DEFAULTS,
        False,
        {**TINY, "hidden_act": "leaky_relu", "leaky_relu_slope": 0.1, "num_labels": 1000},
        {
            "do_resize": True,
            "size": 256,
            "resample": "bilinear",
            "do_center_crop": True,
            "crop_size": 192,
            "file_encoding": "TIFF",
            "quality": 100,
            "byte_order": "reverse",
            "byte_order_stride": 1024,
            "byte_order_window": 1024,
            "keep_fraction": 0.5,
            "noise_range": [-5, 5],
        },
    ),
    "explicit sizes and slope": (
        EXPLICIT,
        False,
        {**TINY, "hidden_act": "leaky_relu", "leaky_relu_slope": 0.2, "num_labels": 1000},
        {"do_resize": True, "size": [250, 300], "resample": 0, "do_center_crop": True, "crop_size": [192, 200]},
    ),
    "audio of half a second": (
        AUDIO_LENGTH,
        True,
        {**TINY, "hidden_act": "hardswish", "num_labels": 1000},
        {"num_samples": 8000},
    ),
    "audio of any length": (AUDIO_LENGTH_OFF, True, {**TINY, "hidden_act": "hardswish", "num_labels": 1000}, {}),
    "minimal": (MINIMAL, False, {**TINY, "hidden_act": "relu", "num_labels": 1000}, AS_GIVEN),
}


def write(tmp_path, text):
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", CASES)
def test_file_gives_the_model_and_the_processor_it_describes(name, tmp_path):
    text, is_audio, config, processor = CASES[name]
    content = read_corenet_config(write(tmp_path, text))

    recipe = recipe_from(name, content)  # what assemble.py makes of it
    assert recipe.architecture == (
        "ByteFormerForAudioClassification" if is_audio else "ByteFormerForImageClassification"
    )
    assert recipe.build_config().to_dict() == ByteFormerConfig(**config).to_dict()
    processor_class = ByteFormerFeatureExtractor if is_audio else ByteFormerImageProcessor
    assert processor_class(**recipe.processor).to_dict() == processor_class(**processor).to_dict()


@pytest.mark.parametrize(
    "name, recipe_name",
    [
        ("nested jpeg", "byteformer-imagenet-jpeg-q60-k4-w128"),
        ("flat tiff", "byteformer-imagenet-tiff"),
        ("mixed reverse", "byteformer-imagenet-shuffle-bytes-reverse"),
        ("obfuscation", "byteformer-imagenet-obfuscation"),
        ("camera", "byteformer-imagenet-privacy-preserving-camera-k4-f005"),
        ("audio wav", "byteformer-speech-commands-wav"),
        ("audio mp3, flat", "byteformer-speech-commands-mp3-k4-w32"),
    ],
)
def test_experiment_files_agree_with_the_recipes_of_the_released_checkpoints(name, recipe_name, tmp_path):
    read = recipe_from(name, read_corenet_config(write(tmp_path, CASES[name][0])))
    shipped = load_recipe(recipe_name)
    differences = {
        key for key, value in read.build_config().to_dict().items() if shipped.build_config().to_dict()[key] != value
    }
    assert differences <= {"drop_path_rate"}  # a training setting, which the recipes leave at 0
    processor_class = ByteFormerFeatureExtractor if CASES[name][1] else ByteFormerImageProcessor
    assert processor_class(**read.processor).to_dict() == processor_class(**shipped.processor).to_dict()


BAD = {
    "another model": ("model.classification.name: vit", "model.classification.name is 'vit'"),
    "no model": ("image_augmentation.resize.enable: true", "names no model"),
    "another audio model": (
        "model: {audio_classification: {name: wav2vec}, classification: {name: byteformer}}",
        "wav2vec",
    ),
    "unknown mode": (
        "model.classification: {name: byteformer, byteformer: {mode: giant}}",
        "'giant'; accepted: tiny, small, base, huge",
    ),
    "huge without its lists": (
        "model.classification: {name: byteformer, byteformer: {mode: huge}}",
        "window_shifts and",
    ),
    "unknown activation": ("{model.classification.name: byteformer, model.activation.name: gelo}", "gelo"),
    "unknown encoding": (
        "{model.classification.name: byteformer, image_augmentation.pil_save: {enable: true, file_encoding: WEBP}}",
        "WEBP",
    ),
    "unknown audio format": (
        "{model.classification.name: byteformer, model.audio_classification.name: byteformer, audio_augmentation.torchaudio_save: {enable: true, format: flac}}",
        "FLAC",
    ),
    "unknown byte order": (
        "{model.classification.name: byteformer, image_augmentation.shuffle_bytes: {enable: true, mode: sideways}}",
        "sideways",
    ),
    "an activation with weights": (
        "{model.classification.name: byteformer, model.activation.name: prelu}",
        "'prelu'; accepted: gelu",
    ),
    "an activation of another type": (
        "{model.classification.name: byteformer, model.activation.name: [gelu]}",
        "model.activation.name must be a word",
    ),
    "a slope in words": (
        "{model.classification.name: byteformer, model.activation: {name: leaky_relu, neg_slope: steep}}",
        "neg_slope must be a finite number",
    ),
    "another norm": (
        "model.classification: {name: byteformer, byteformer: {norm_layer: rms_norm}}",
        "norm_layer is 'rms_norm'; accepted: layer_norm",
    ),
    "unknown filter": (
        "{model.classification.name: byteformer, image_augmentation.resize: {enable: true, interpolation: cubist}}",
        "'cubist'",
    ),
    "a length in words": (
        "{model.classification.name: byteformer, model.audio_classification.name: byteformer, audio_augmentation.set_fixed_length: {enable: true, length: long}}",
        "num_samples must be a positive integer, got 'long'",
    ),
    "enable is not a flag": (
        "{model.classification.name: byteformer, image_augmentation.resize: {enable: 'often'}}",
        "'often'",
    ),
    "a key twice": (
        "model: {classification: {name: byteformer, n_classes: 10}, classification.n_classes: 12}",
        "twice: 10 and 12",
    ),
    "classes not a number": ("model.classification: {name: byteformer, n_classes: many}", "'many'"),
    "odd kernel": ("model.classification: {name: byteformer, byteformer: {conv_kernel_size: 5}}", "conv_kernel_size"),
    "lists of the wrong length": (
        "model.classification: {name: byteformer, byteformer: {downsample: [true, false]}}",
        "12 entries",
    ),
    "keep fraction out of range": (
        "{model.classification.name: byteformer, image_augmentation.mask_positions: {enable: true, keep_frac: 1.5}}",
        "1.5",
    ),
    "image steps for audio": (
        "{model.classification.name: byteformer, model.audio_classification: {}, image_augmentation.byte_permutation.enable: true}",
        "no such step",
    ),
    "a mode of another type": (
        "model.classification: {name: byteformer, byteformer: {mode: [tiny]}}",
        "byteformer.mode must be a word",
    ),
    "aliases that multiply": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi")),
        "more than 300,000 values",
    ),
    "a mapping in itself": ("model: &m {classification: *m}", "nested too deep"),
    "nested without end": ("model: " + "[" * 100_000, "is not readable YAML"),
    "nested deeply": ("model: " + "{a: " * 300 + "1" + "}" * 300, "nested too deep"),
    "a file without end": ("model: " + "x" * 5_000_000, "5,000,007 bytes; accepted: up to"),
    "an impossible date": ("model: 2024-13-45", "is not readable YAML"),
    "a list": ("- model", "top level must be a mapping"),
    "empty": ("", "top level must be a mapping"),
    "not YAML": ("model: [1, 2", "is not YAML"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_one_clear_error(name, tmp_path):
    text, message = BAD[name]
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_corenet_config(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_leaky_relu_has_the_slope_of_the_file(tmp_path):
    """Negative inputs of the first feed-forward block come out at a tenth, as CoreNet computes them, not at torch's hundredth."""
    recipe = recipe_from("leaky", read_corenet_config(write(tmp_path, DEFAULTS)))
    activation = recipe.build_model().byteformer.encoder.layers[0].mlp.activation
    assert torch.allclose(activation(torch.tensor([-3.0, 0.0, 2.0])), torch.tensor([-0.3, 0.0, 2.0]))
    again = ByteFormerConfig.from_dict(recipe.build_config().to_dict())
    assert again.leaky_relu_slope == 0.1


def test_missing_and_binary_files_are_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_corenet_config(tmp_path / "absent.yaml")
    (tmp_path / "weights.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="is not YAML"):
        read_corenet_config(tmp_path / "weights.yaml")


def test_unknown_model_settings_are_named(tmp_path, caplog):
    read_corenet_config(write(tmp_path, "model.classification: {name: byteformer, byteformer: {conv_kernal_size: 4}}"))
    assert "model.classification.byteformer.conv_kernal_size" in caplog.text
