"""Reads a CoreNet experiment file (YAML) of a ByteFormer into what a recipe holds.

Keys may be nested, flat with dots, or both at once. Only what inference needs is read: the model, and the steps from an image
or a waveform to bytes. A step counts only where its block says `enable: true`; training-only blocks play no part. What a file
leaves out has CoreNet's default; those that differ from the classes' own are named below.
"""

import logging
import reprlib
from pathlib import Path
from typing import Any, Dict, Mapping

from ..errors import UserError
from ..foreign.documents import read_document
from ..foreign.schema import check_experiment
from ..packages import PACKAGES

logger = logging.getLogger(__name__)

MODEL = "model.classification.byteformer"
SAME_NAME = ("conv_kernel_size", "window_sizes", "window_shifts", "downsample", "vocab_size", "sinusoidal_pos_emb")
RENAMED = {
    "max_num_tokens": "max_position_embeddings",
    "dropout": "hidden_dropout_prob",
    "stochastic_dropout": "drop_path_rate",
}
NORMS = ("layer_norm", "layer_norm_fp32")  # the same at inference
# CoreNet's names of activations -> transformers'. Those that are missing have no counterpart, or weights of their own.
ACTIVATIONS = {
    **{name: name for name in ("gelu", "leaky_relu", "relu", "relu6", "sigmoid", "swish", "tanh")},
    "hard_swish": "hardswish",
}
BYTE_STEPS = ("shuffle_bytes", "mask_positions", "random_uniform", "byte_permutation")
PER_LAYER = ("window_shifts", "downsample")
MODEL_NAMES = ("byteformer",)
AUDIO_MODEL_NAMES = ("byteformer", "audio_byteformer")
DEFAULT_LAYERS = 12  # the lists of the configuration's defaults have so many entries

DEFAULT_MODE = "tiny"
DEFAULT_ACTIVATION = "relu"
DEFAULT_CLASSES = 1000
DEFAULT_SLOPE = 0.1
DEFAULT_INTERPOLATION = "bilinear"
DEFAULT_BYTE_ORDER = "reverse"
DEFAULT_KEPT = 0.5
DEFAULT_NOISE = [-5, 5]
DEFAULT_CLIP = 16000


def read_corenet_config(path: Any) -> Dict[str, Any]:
    """What a recipe holds, from an experiment file.

    Args:
        path: The YAML file.

    Returns:
        {"package": "byteformer", "architecture": class name, "config": arguments of ByteFormerConfig, "processor": arguments
        of ByteFormerImageProcessor, or of ByteFormerFeatureExtractor where the file has `model.audio_classification`}

    Raises:
        UserError: not YAML, another model, an unknown mode, or values that no model or processor can be built from.
    """
    settings = flatten(load_yaml(Path(path)), str(path))
    check_experiment(settings, str(path))
    check_names(settings, str(path))
    is_audio = has_block(settings, "model.audio_classification")
    recipe = {
        "package": "byteformer",
        "architecture": "ByteFormerForAudioClassification" if is_audio else "ByteFormerForImageClassification",
        "config": read_model(settings, str(path)),
        "processor": read_audio_steps(settings, str(path)) if is_audio else read_image_steps(settings, str(path)),
    }
    check_buildable(recipe, str(path))
    return recipe


def load_yaml(path: Path) -> Mapping[str, Any]:
    content = read_document(path)
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path} is not a CoreNet experiment file: its top level must be a mapping, got {type(content).__name__}"
        )
    return content


def flatten(content: Mapping[str, Any], path: str, prefix: str = "") -> Dict[str, Any]:
    """{"model": {"activation.name": "gelu"}} -> {"model.activation.name": "gelu"}; an empty block stays as key -> None."""
    flat: Dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        inner = (
            flatten(value, path, f"{name}.")
            if isinstance(value, Mapping) and value
            else {name: None if value == {} else value}
        )
        for full_name, setting in inner.items():
            if full_name in flat and flat[full_name] != setting:
                raise UserError(
                    f"{path} gives {full_name} twice: {reprlib.repr(flat[full_name])} and {reprlib.repr(setting)}"
                )
            flat[full_name] = setting
    return flat


def has_block(settings: Mapping[str, Any], block: str) -> bool:
    return any(key == block or key.startswith(f"{block}.") for key in settings)


def get(settings: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The setting, or the default where it is absent or empty."""
    value = settings.get(key)
    return default if value is None else value


def is_enabled(settings: Mapping[str, Any], block: str, path: str) -> bool:
    value = get(settings, f"{block}.enable", False)
    if not isinstance(value, bool):
        raise UserError(f"{path}: {block}.enable must be true or false, got {reprlib.repr(value)}")
    return value


# --- the model --------------------------------------------------------------------------------------------------------


def check_names(settings: Mapping[str, Any], path: str) -> None:
    """The file must say that it is a ByteFormer, and nothing else."""
    names = {"model.classification.name": MODEL_NAMES, "model.audio_classification.name": AUDIO_MODEL_NAMES}
    given = {key: settings[key] for key in names if get(settings, key) is not None}
    for key, name in given.items():
        if name not in names[key]:
            raise UserError(f"{path}: {key} is {reprlib.repr(name)}; accepted: {', '.join(names[key])}")
    if not given and not has_block(settings, MODEL):
        raise UserError(f"{path} names no model: model.classification.name must be {', '.join(MODEL_NAMES)}")


def read_model(settings: Mapping[str, Any], path: str) -> Dict[str, Any]:
    """The arguments of ByteFormerConfig."""
    modes = PACKAGES["byteformer"].load().BYTEFORMER_MODES
    mode = get(settings, f"{MODEL}.mode", DEFAULT_MODE)
    if not isinstance(mode, str) or mode not in modes:
        raise UserError(f"{path}: {MODEL}.mode is {reprlib.repr(mode)}; accepted: {', '.join(modes)}")
    config = dict(modes[mode])
    for key in SAME_NAME:
        if get(settings, f"{MODEL}.{key}") is not None:
            config[key] = settings[f"{MODEL}.{key}"]
    for key, name in RENAMED.items():
        if get(settings, f"{MODEL}.{key}") is not None:
            config[name] = settings[f"{MODEL}.{key}"]
    config.update(read_activation(settings, path))
    check_norm(settings, path)
    config["num_labels"] = get(settings, "model.classification.n_classes", DEFAULT_CLASSES)
    if not isinstance(config["num_labels"], int) or isinstance(config["num_labels"], bool) or config["num_labels"] < 1:
        raise UserError(
            f"{path}: model.classification.n_classes must be a positive integer, got {reprlib.repr(config['num_labels'])}"
        )
    check_layers(config, mode, path)
    reduce_shifts(config)
    report_ignored(settings, path)
    return config


def read_activation(settings: Mapping[str, Any], path: str) -> Dict[str, Any]:
    name = get(settings, "model.activation.name", DEFAULT_ACTIVATION)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UserError(f"{path}: model.activation.name is {reprlib.repr(name)}; accepted: {', '.join(ACTIVATIONS)}")
    if name == "leaky_relu":
        return {"hidden_act": name, "leaky_relu_slope": get(settings, "model.activation.neg_slope", DEFAULT_SLOPE)}
    return {"hidden_act": ACTIVATIONS[name]}


def check_norm(settings: Mapping[str, Any], path: str) -> None:
    name = get(settings, f"{MODEL}.norm_layer", NORMS[0])
    if name not in NORMS:
        raise UserError(f"{path}: {MODEL}.norm_layer is {reprlib.repr(name)}; accepted: {', '.join(NORMS)}")


def check_layers(config: Mapping[str, Any], mode: str, path: str) -> None:
    layers = config["num_hidden_layers"]
    absent = [key for key in PER_LAYER if key not in config]
    if layers != DEFAULT_LAYERS and absent:
        raise UserError(
            f"{path}: mode {reprlib.repr(mode)} has {layers} layers; {' and '.join(f'{MODEL}.{key}' for key in absent)} must be given, one entry per layer"
        )


def reduce_shifts(config: Dict[str, Any]) -> None:
    """CoreNet rolls by whole windows, to no effect, where a shift reaches the window's size: what counts is the rest."""
    shifts, windows = config.get("window_shifts"), config.get("window_sizes", [128])
    if isinstance(windows, int):
        config["window_sizes"] = windows = [windows]
    lists = [values for values in (shifts, windows) if isinstance(values, list) and values]
    if (
        len(lists) == 2
        and all(type(value) is int and value >= 0 for values in lists for value in values)
        and all(windows)
    ):
        config["window_shifts"] = [shift % windows[layer % len(windows)] for layer, shift in enumerate(shifts)]


def report_ignored(settings: Mapping[str, Any], path: str) -> None:
    known = {f"{MODEL}.{key}" for key in ("mode", "norm_layer", *SAME_NAME, *RENAMED)}
    ignored = sorted(key for key in settings if key.startswith(f"{MODEL}.") and key not in known)
    if ignored:
        logger.warning("%s: ignored, unknown here: %s", path, ", ".join(ignored))


# --- from an image or a waveform to bytes -----------------------------------------------------------------------------


def read_image_steps(settings: Mapping[str, Any], path: str) -> Dict[str, Any]:
    """The arguments of ByteFormerImageProcessor."""
    block = "image_augmentation"
    processor: Dict[str, Any] = {"do_resize": False, "do_center_crop": False}
    if is_enabled(settings, f"{block}.resize", path):
        processor.update(do_resize=True, resample=get(settings, f"{block}.resize.interpolation", DEFAULT_INTERPOLATION))
        processor.update(read_size(settings, f"{block}.resize", "size"))
    if is_enabled(settings, f"{block}.center_crop", path):
        processor.update(do_center_crop=True, **read_size(settings, f"{block}.center_crop", "crop_size"))
    if is_enabled(settings, f"{block}.pil_save", path):
        processor.update(
            chosen(settings, f"{block}.pil_save", {"file_encoding": "file_encoding", "quality": "quality"})
        )
    if is_enabled(settings, f"{block}.shuffle_bytes", path):
        processor["byte_order"] = get(settings, f"{block}.shuffle_bytes.mode", DEFAULT_BYTE_ORDER)
        processor.update(
            chosen(
                settings, f"{block}.shuffle_bytes", {"stride": "byte_order_stride", "window_size": "byte_order_window"}
            )
        )
    if is_enabled(settings, f"{block}.mask_positions", path):
        processor["keep_fraction"] = get(settings, f"{block}.mask_positions.keep_frac", DEFAULT_KEPT)
    if is_enabled(settings, f"{block}.random_uniform", path):
        processor["noise_range"] = get(settings, f"{block}.random_uniform.width_range", DEFAULT_NOISE)
    if is_enabled(settings, f"{block}.byte_permutation", path):
        processor["permute_bytes"] = True
    return processor


def read_audio_steps(settings: Mapping[str, Any], path: str) -> Dict[str, Any]:
    """The arguments of ByteFormerFeatureExtractor. CoreNet writes formats in lower case."""
    image_only = [name for name in BYTE_STEPS if is_enabled(settings, f"image_augmentation.{name}", path)]
    if image_only:
        raise UserError(
            f"{path} is an audio experiment, but enables image_augmentation.{', '.join(image_only)}; the feature extractor has no such step"
        )
    processor: Dict[str, Any] = {}
    if is_enabled(settings, "audio_augmentation.set_fixed_length", path):
        processor["num_samples"] = get(settings, "audio_augmentation.set_fixed_length.length", DEFAULT_CLIP)
    block = "audio_augmentation.torchaudio_save"
    if is_enabled(settings, block, path):
        processor.update(chosen(settings, block, {"format": "file_encoding", "encoding_dtype": "sample_dtype"}))
    if "file_encoding" in processor:
        processor["file_encoding"] = str(processor["file_encoding"]).upper()
    return processor


def read_size(settings: Mapping[str, Any], block: str, name: str) -> Dict[str, Any]:
    """A block's size under the processor's name; a list of one number means that number."""
    size = get(settings, f"{block}.size")
    if isinstance(size, list) and len(size) == 1:
        size = size[0]
    return {} if size is None else {name: size}


def chosen(settings: Mapping[str, Any], block: str, names: Mapping[str, str]) -> Dict[str, Any]:
    """The settings of a block that are there, under the processor's names."""
    values = {name: get(settings, f"{block}.{key}") for key, name in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def check_buildable(recipe: Mapping[str, Any], path: str) -> None:
    """Builds what the recipe describes, so that a value out of range is told as this file's error."""
    package = PACKAGES["byteformer"].load()
    is_audio = recipe["architecture"] == "ByteFormerForAudioClassification"
    processor = package.ByteFormerFeatureExtractor if is_audio else package.ByteFormerImageProcessor
    for build, arguments in ((package.ByteFormerConfig, recipe["config"]), (processor, recipe["processor"])):
        try:
            build(**arguments)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: {error}") from error
