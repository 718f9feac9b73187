"""What a configuration, a recipe and a card may say, described once: types, bounds and choices, as JSON Schema.

The fields of a configuration or a processor are read off its source, whose defaults tell their types; the bounds stand here.
They are far above every model of the field, and low enough that nothing is built, or looped over, without end.
"""

import ast
import math
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from ..errors import UserError, plain, shown, some
from ..packages import Package

Schema = Dict[str, Any]
MAX_LABELS = 2**18
MAX_LABEL_LENGTH = 500
MAX_LARGE = 2**31 - 1

# The largest value of each size; a size without an entry is bounded by OTHER_SIZE.
OTHER_SIZE = 2**16
SIZES = {
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "num_hidden_layers": 1024,
    "num_attention_heads": 4096,
    "num_channels": 64,
    "image_size": 4096,
    "patch_size": 512,
    "spatial_merge_size": 32,
    "max_visible_patches": MAX_LARGE,
    "vocab_size": 2**16,
    "conv_kernel_size": 2**14,
    "max_position_embeddings": 10**7,
    "num_labels": MAX_LABELS,
    "sampling_rate": 10**6,
    "byte_order_stride": MAX_LARGE,
    "byte_order_window": 2**24,
}
MAX_WINDOW = 4096  # attention inside a window costs its square
MAX_PICTURE_SIDE = 4096


# --- values -----------------------------------------------------------------------------------------------------------


def integer(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "description": f"an integer from {low} to {high}"}


def text(pattern: str, description: str, longest: int) -> Schema:
    return {"type": "string", "pattern": pattern, "printable": True, "maxLength": longest, "description": description}


def line(longest: int) -> Schema:
    """One line of text that a person reads."""
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": longest,
        "printable": True,
        "description": f"one line of text, of up to {longest} printable characters",
    }


def listed(entry: Schema, longest: int, least: int = 0) -> Schema:
    return {
        "type": "array",
        "items": entry,
        "minItems": least,
        "maxItems": longest,
        "description": f"a list of up to {longest}, each {entry['description']}",
    }


def either(*choices: Schema) -> Schema:
    return {"anyOf": list(choices), "description": " or ".join(choice["description"] for choice in choices)}


def table(properties: Mapping[str, Schema], required: Iterable[str] = (), description: str = "a table") -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
        "description": description,
    }


NULL = {"type": "null", "description": "null"}
FLAG = {"type": "boolean", "description": "true or false"}
NUMBER = {"type": "number", "description": "a finite number"}
WORD = text(r"\A[A-Za-z0-9][A-Za-z0-9_.+-]*\Z", "a word of letters, digits and _ . + -", 100)
ANY_LARGE = {"type": "object", "maxProperties": MAX_LABELS, "description": f"a table of up to {MAX_LABELS}"}

# --- the configurations -----------------------------------------------------------------------------------------------

LABELS = {
    "num_labels": integer(1, MAX_LABELS),
    "id2label": either(ANY_LARGE, NULL),
    "label2id": either(ANY_LARGE, NULL),
    "problem_type": either(
        {
            "enum": ["regression", "single_label_classification", "multi_label_classification"],
            "description": "the name of a loss",
        },
        NULL,
    ),
}
# Fields whose default does not tell what they may hold.
SPECIAL = {
    "window_sizes": either(listed(integer(1, MAX_WINDOW), 1024, least=1), NULL),
    "window_shifts": either(listed(integer(0, MAX_LARGE), 1024), NULL),
    "downsample": either(listed(FLAG, 1024), NULL),
    "out_hidden_size": either(integer(1, SIZES["hidden_size"]), NULL),
    "out_features": either(listed(text(r"\A(stem|stage[0-9]{1,4})\Z", "a stage, such as stage2", 10), 1025), NULL),
    "out_indices": either(listed(integer(-1025, 1024), 1025), NULL),
    **LABELS,
}
# What transformers itself keeps in a config.json, where its type decides what is built or run.
GENERIC = {
    "model_type": WORD,
    "architectures": either(listed(WORD, 4), NULL),
    "auto_map": either(
        {
            "type": "object",
            "maxProperties": 20,
            "additionalProperties": line(200),
            "description": "a table of class names",
        },
        NULL,
    ),
    "torch_dtype": either(WORD, NULL),
    "dtype": either(WORD, NULL),
    "transformers_version": either(line(40), NULL),
}


def field(name: str, default: Any) -> Schema:
    """What a field may hold, told from its default."""
    if name in SPECIAL:
        return SPECIAL[name]
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, int):
        return integer(min(1, default), SIZES.get(name, OTHER_SIZE))  # 0 where that is what turns something off
    if isinstance(default, float):
        return NUMBER
    if isinstance(default, str):
        return WORD
    return either(FLAG, NUMBER, WORD, listed(either(NUMBER, FLAG, WORD), 1024), NULL)


@lru_cache(maxsize=None)
def arguments_of(file: Path, class_name: str) -> Mapping[str, Any]:
    """The named arguments of a class with their defaults, read off its source: importing it would cost seconds."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    made = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    arguments = next(node for node in made.body if isinstance(node, ast.FunctionDef) and node.name == "__init__").args
    names = [argument.arg for argument in (*arguments.args[1:], *arguments.kwonlyargs)]
    return dict(zip(names, map(_default, (*arguments.defaults, *arguments.kw_defaults)), strict=True))


def _default(node: Optional[ast.expr]) -> Any:
    try:
        return ast.literal_eval(node) if node else None
    except ValueError:  # a name, such as of a constant
        return None


def config_schema(package: Package, is_file: bool = False) -> Schema:
    """What a recipe may say under [config]; with `is_file`, what a config.json may say in the same fields and in transformers' own."""
    fields = {
        name: field(name, default)
        for name, default in arguments_of(package.folder / f"{package.configuration}.py", package.config_class).items()
    }
    schema = table({**fields, **LABELS, **(GENERIC if is_file else {})})
    schema["additionalProperties"] = is_file
    return schema


# --- the processors ---------------------------------------------------------------------------------------------------

_SIDE = integer(1, MAX_PICTURE_SIDE)
_SIDES = table(
    {name: _SIDE for name in ("shortest_edge", "longest_edge", "height", "width")},
    description="a table of sides in pixels",
)
PICTURE_SIZE = either(_SIDE, _SIDES, listed(_SIDE, 2, least=1))
_THREE = either(listed(NUMBER, 4, least=1), NUMBER)
CLIP_PROCESSOR = table({
    "do_resize": FLAG, "size": PICTURE_SIZE, "resample": integer(0, 5), "do_center_crop": FLAG, "crop_size": PICTURE_SIZE,
    "do_rescale": FLAG, "rescale_factor": NUMBER, "do_normalize": FLAG, "image_mean": _THREE, "image_std": _THREE, "do_convert_rgb": FLAG,
})  # fmt: skip
PROCESSOR_SPECIAL = {
    "resample": either(integer(0, 5), WORD),
    "size": PICTURE_SIZE,
    "crop_size": PICTURE_SIZE,
    "noise_range": either(listed(integer(-256, 256), 2, least=2), NULL),
    "keep_fraction": either(NUMBER, NULL),
    "quality": integer(1, 100),
    "image_mean": listed(NUMBER, 3, least=3),
    "image_std": listed(NUMBER, 3, least=3),
}


def processor_schema(package: Package, auto_class: Optional[str]) -> Schema:
    """What a recipe may say under [processor]; None stands for transformers' CLIP processor."""
    if auto_class is None:
        return CLIP_PROCESSOR
    module, class_name = package.processors[auto_class]
    arguments = arguments_of(package.folder / f"{module}.py", class_name)
    fields = {name: PROCESSOR_SPECIAL.get(name) or field(name, default) for name, default in arguments.items()}
    if package.processors_if_named:
        fields["image_processor_type"], arguments = WORD, {**arguments, "image_processor_type": None}
    return table(
        {name: either(entry, NULL) if isinstance(arguments[name], str) else entry for name, entry in fields.items()}
    )


VIDEO_SPECIAL = {
    "num_frames": integer(1, MAX_LARGE),
    "size": PICTURE_SIZE,
    "selection": either(WORD, NULL),
    "image_mean": listed(NUMBER, 3, least=3),
    "image_std": listed(NUMBER, 3, least=3),
}


def video_schema(package: Package) -> Schema:
    """What a recipe may say under [video_processor]."""
    if package.video_processor is None:
        return table({})
    made = package.video_processor
    arguments = arguments_of(package.folder / f"{made.modules[0]}.py", made.class_name)
    return table(
        {
            name: VIDEO_SPECIAL.get(name) or field(name, default)
            for name, default in arguments.items()
            if name != "image_settings"
        }
    )


# --- cards ------------------------------------------------------------------------------------------------------------

REPO = text(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)?\Z", "the name of a repository", 200)
LICENCE = text(r"\A[a-z0-9][a-z0-9.+-]*\Z", "a licence's identifier, such as apache-2.0", 60)
LANGUAGE = text(r"\A[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*\Z", "a language's code, such as en", 40)
TAG = text(r"\A[^\s,\[\]{}\"'`<>|#&*!%@][^\n\"`<>|]*\Z", "a tag of letters and digits", 100)
METRIC = table(
    {"name": line(100), "value": NUMBER, "dataset": line(200), "task": WORD},
    ("name", "value", "dataset", "task"),
    "a table of name, value, dataset and task",
)
CARD = table({
    "license": LICENCE,
    "license_name": line(200),
    "license_link": text(r"\A[^\s\"'`<>()\[\]{}|\\]+\Z", "an address or a file's name", 500),
    "summary": line(1000),
    "datasets": listed(REPO, 100),
    "metrics": listed(METRIC, 100),
    "tags": listed(TAG, 100),
    "pipeline_tag": text(r"\A[a-z0-9]+(-[a-z0-9]+)*\Z", "a task's name, such as image-classification", 60),
    "paper": text(r"\A[0-9]{4}\.[0-9]{4,5}(v[0-9]+)?\Z", "an arXiv number, such as 2306.00238", 20),
    "base_model": either(REPO, listed(REPO, 20)),
    "language": either(LANGUAGE, listed(LANGUAGE, 200)),
})  # fmt: skip


# --- CoreNet's experiment files ----------------------------------------------------------------------------------------

_BYTEFORMER = "model.classification.byteformer."
_STEPS = "image_augmentation."
CORENET = {
    "type": "object",
    "maxProperties": 10_000,
    "properties": {
        **{f"model.{kind}.name": either(WORD, NULL) for kind in ("classification", "audio_classification")},
        "model.classification.n_classes": either(integer(1, MAX_LABELS), NULL),
        "model.activation.name": either(WORD, NULL),
        "model.activation.neg_slope": either(NUMBER, NULL),
        "model.normalization.name": either(WORD, NULL),
        f"{_BYTEFORMER}mode": either(WORD, NULL),
        f"{_BYTEFORMER}window_sizes": either(listed(integer(1, MAX_WINDOW), 1024), integer(1, MAX_WINDOW), NULL),
        f"{_BYTEFORMER}window_shifts": either(listed(integer(0, MAX_LARGE), 1024), integer(0, MAX_LARGE), NULL),
        f"{_BYTEFORMER}downsample": either(listed(FLAG, 1024), FLAG, NULL),
        f"{_BYTEFORMER}conv_kernel_size": either(integer(1, SIZES["conv_kernel_size"]), NULL),
        f"{_BYTEFORMER}vocab_size": either(integer(1, SIZES["vocab_size"]), NULL),
        f"{_BYTEFORMER}max_num_tokens": either(integer(1, SIZES["max_position_embeddings"]), NULL),
        f"{_BYTEFORMER}sinusoidal_pos_emb": either(FLAG, NULL),
        **{f"{_BYTEFORMER}{name}": either(NUMBER, NULL) for name in ("dropout", "stochastic_dropout")},
        f"{_STEPS}resize.size": either(PICTURE_SIZE, NULL),
        f"{_STEPS}resize.interpolation": either(WORD, NULL),
        f"{_STEPS}center_crop.size": either(PICTURE_SIZE, NULL),
        f"{_STEPS}pil_save.file_encoding": either(WORD, NULL),
        f"{_STEPS}pil_save.quality": either(integer(1, 100), NULL),
        f"{_STEPS}shuffle_bytes.mode": either(WORD, NULL),
        f"{_STEPS}shuffle_bytes.stride": either(integer(1, MAX_LARGE), NULL),
        f"{_STEPS}shuffle_bytes.window_size": either(integer(1, SIZES["byte_order_window"]), NULL),
        f"{_STEPS}mask_positions.keep_frac": either(NUMBER, NULL),
        f"{_STEPS}random_uniform.width_range": either(listed(integer(-256, 256), 2, least=2), NULL),
        "audio_augmentation.torchaudio_save.format": either(WORD, NULL),
        "audio_augmentation.torchaudio_save.encoding_dtype": either(WORD, NULL),
    },
    "description": "the settings of an experiment",
}


# --- checking ---------------------------------------------------------------------------------------------------------


def _is_number(checker, value: object) -> bool:
    return (isinstance(value, float) and math.isfinite(value)) or (type(value) is int and abs(value) < 2**1000)


def _printable(validator, wanted, value, schema):
    if isinstance(value, str) and not value.isprintable():
        yield ValidationError("not printable")


_TYPES = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda checker, value: type(value) is int).redefine(
    "number", _is_number
)
Validator = extend(Draft202012Validator, {"printable": _printable}, type_checker=_TYPES)


def check(content: Any, schema: Schema, where: str) -> None:
    """Refuses what the schema does not describe.

    Raises:
        UserError: names the first field that is wrong, what it holds and what is accepted.
    """
    errors = list(islice(Validator(schema).iter_errors(content), 20))
    if not errors:
        return
    # A key that is misspelt is missing, too: the misspelling is what helps.
    error = next((error for error in errors if error.validator == "additionalProperties"), errors[0])
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{plain(part, 80)}" for part in error.absolute_path
    ).lstrip(".")
    if error.validator == "additionalProperties":
        unknown = sorted(str(key) for key in error.instance if key not in error.schema["properties"])
        raise UserError(
            f"{where}{place and ': ' + place}: unknown {some([plain(key, 60) for key in unknown[:9]], 3)}; known: {', '.join(error.schema['properties'])}"
        )
    if error.validator == "required":
        absent = [key for key in error.schema["required"] if key not in error.instance]
        raise UserError(f"{where}{place and ': ' + place}: {', '.join(absent)} missing in {shown(error.instance)}")
    accepted = error.schema.get("description", error.message)
    raise UserError(f"{where}{place and ': ' + place} must be {accepted}, got {shown(error.instance)}")


def check_experiment(settings: Mapping[str, Any], where: str) -> None:
    """The flattened settings of a CoreNet experiment: types and bounds, and no table where a value belongs.

    Raises:
        UserError: names the first setting that is wrong.
    """
    check(settings, CORENET, where)
    below = next((key for key in settings for value in CORENET["properties"] if key.startswith(f"{value}.")), None)
    if below:
        raise UserError(f"{where}: {plain(below, 120)} is inside a setting that takes a value, not a table")


def check_config_file(content: Mapping[str, Any], package: Package, where: str) -> None:
    """The values of a config.json are of the types, and within the bounds, that its package knows.

    Raises:
        UserError: names the first field that is wrong.
    """
    check(content, config_schema(package, is_file=True), where)
    check_labels(content, where)


def check_processor_file(content: Mapping[str, Any], package: Package, where: str) -> None:
    """The values of a preprocessor_config.json, among whatever else a release of transformers keeps there.

    Raises:
        UserError: names the first field that is wrong.
    """
    auto_class = "AutoFeatureExtractor" if "feature_extractor_type" in content else "AutoImageProcessor"
    schema = processor_schema(package, auto_class if package.has_own_processor(content) else None)
    fields = {name: either(entry, NULL) for name, entry in schema["properties"].items()}
    kinds = {name: either(WORD, NULL) for name in ("image_processor_type", "feature_extractor_type", "processor_class")}
    check(
        content,
        {**schema, "properties": {**fields, **kinds, "auto_map": GENERIC["auto_map"]}, "additionalProperties": True},
        where,
    )


def check_video_file(content: Mapping[str, Any], package: Package, where: str) -> None:
    """The values of a video_preprocessor_config.json.

    Raises:
        UserError: names the first field that is wrong.
    """
    fields = {**video_schema(package)["properties"], "video_processor_type": WORD, "auto_map": GENERIC["auto_map"]}
    check(content, {**table(fields), "additionalProperties": True}, where)


def check_labels(content: Mapping[str, Any], where: str) -> None:
    """Labels are text, one for each number from 0 on, and both directions agree.

    Raises:
        UserError: gaps, labels that are no text, a `label2id` or `num_labels` that says otherwise.
    """
    names, numbers, count = content.get("id2label"), content.get("label2id"), content.get("num_labels")
    if not names:
        if numbers:
            raise UserError(f"{where}: label2id is given without id2label")
        return
    labels = _in_order(names, f"{where}: id2label")
    if count is not None and count != len(labels):
        raise UserError(f"{where}: num_labels is {count}, id2label has {len(labels)} entries")
    for label, index in (numbers or {}).items():
        if type(index) is not int or not 0 <= index < len(labels) or labels[index] != label:
            raise UserError(
                f"{where}: label2id gives {shown(label)} the number {shown(index)}, which id2label does not"
            )
    absent = sorted(set(labels) - set(numbers)) if numbers else []
    if absent:
        raise UserError(f"{where}: label2id has no {shown(absent[0])}, which id2label has")


def _in_order(names: Mapping[Any, Any], where: str) -> List[str]:
    numbered = {}
    for key, label in names.items():
        number = str(key)
        if not (number.isascii() and number.isdigit() and str(int(number[:12])) == number):
            raise UserError(f"{where} has the key {shown(key)}; accepted: the numbers from 0 on")
        if not isinstance(label, str) or not label.isprintable() or not label.strip() or len(label) > MAX_LABEL_LENGTH:
            raise UserError(
                f"{where}[{number}] is {shown(label)}; accepted: one line of text, of up to {MAX_LABEL_LENGTH} printable characters"
            )
        numbered[int(number)] = label
    absent = next((i for i in range(len(numbered)) if i not in numbered), None)
    if absent is not None:
        raise UserError(
            f"{where} has {len(numbered)} entries, but none for {absent}; accepted: one for each number from 0 on"
        )
    return [numbered[i] for i in range(len(numbered))]
