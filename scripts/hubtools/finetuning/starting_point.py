"""The folder that training starts from: recipe, model with the right head, which of its weights are trained, processor."""

import dataclasses
from pathlib import Path
from typing import Any, List, Optional

from ..assembly.processors import CLIP_DEFAULTS, preprocessor_json
from ..assembly.published import has_config, recipe_from_folder
from ..assembly.recipes import Recipe
from ..errors import UserError, some
from ..foreign.files import read_json_object
from ..foreign.schema import check_processor_file
from ..packages import package_named

HEADS = {
    "image": "AutoModelForImageClassification",
    "video": "AutoModelForVideoClassification",
    "audio": "AutoModelForAudioClassification",
}
HEAD_PREFIX = "classifier."


def read_folder_recipe(folder: Path) -> Recipe:
    """What the folder's configuration amounts to.

    Raises:
        UserError: no Hub folder of one of the packages.
    """
    if not has_config(folder):
        raise UserError(f"{folder} is not a Hub folder (it has no config.json); make one with scripts/assemble.py")
    recipe = recipe_from_folder(folder)
    processor = folder / "preprocessor_config.json"
    if not processor.is_file():
        raise UserError(f"{folder} has no preprocessor_config.json, so nothing says what the model's input is made of")
    check_processor_file(read_json_object(processor), recipe.package, str(processor))
    return recipe


def with_native_resolution(recipe: Recipe, max_num_patches: Optional[int]) -> Recipe:
    """The recipe with the processor that reads pictures at their own size and aspect.

    Args:
        recipe: of the folder that training starts from.
        max_num_patches: of one picture; None keeps the folder's bound, or the processor's default.

    Raises:
        UserError: the model reads no pixels, or its processor scales their values in another way.
    """
    if not recipe.package.processors_if_named:
        raise UserError(
            f"--native-resolution is for models that read pixels; {recipe.name} reads {recipe.package.inputs}"
        )
    stated = {**CLIP_DEFAULTS, **recipe.processor}
    if not stated["do_rescale"] or abs(stated["rescale_factor"] * 255 - 1) > 1e-6:
        raise UserError(
            f"--native-resolution scales pixels to [0, 1]; the processor of {recipe.name} scales them otherwise"
        )
    kept = {key: stated[key] for key in ("image_mean", "image_std", "max_num_patches") if key in stated}
    if not stated["do_normalize"]:
        kept.update(image_mean=[0.0] * 3, image_std=[1.0] * 3)
    if max_num_patches is not None:
        kept["max_num_patches"] = max_num_patches
    _, class_name = recipe.package.processors["AutoImageProcessor"]
    return dataclasses.replace(recipe, processor={"image_processor_type": class_name, **kept})


def load_processor(folder: Path, recipe: Recipe) -> Any:
    if recipe.processor_auto_class is None:
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor.from_pretrained(folder)
    processor_class = getattr(recipe.package.load(), recipe.package.processors[recipe.processor_auto_class][1])
    if recipe.package.processors_if_named:  # which one is the recipe's choice, whatever the folder has
        return processor_class.from_dict(preprocessor_json(recipe, recipe.build_config()))
    return processor_class.from_pretrained(folder)


def freeze_all_but_head(model: Any) -> None:
    """Leaves only the classifier to be trained: a linear probe."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD_PREFIX))


def with_adapters(model: Any, package: str, rank: int) -> Any:
    """The model with trainable adapters of that rank in every block, everything else frozen but the classifier, which is trained whole."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UserError("--lora needs PEFT, which is not installed; run: pip install peft") from None
    settings = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=package_named(package).lora_targets, modules_to_save=["classifier"]
    )
    return get_peft_model(model, settings)


def merged(model: Any) -> Any:
    """The plain model with the adapters added to its weights."""
    return model.merge_and_unload()


def load_model(folder: Path, recipe: Recipe, task: str, labels: List[str]) -> Any:
    """The folder's weights under a classifier for `labels`; a classifier that does not fit them is made anew.

    The classes are this repository's: code in the folder is not run.

    Raises:
        UserError: weights of the model itself are missing, superfluous or misshapen.
    """
    model_class = getattr(recipe.package.load(), recipe.package.models[HEADS[task]])
    model, report = model_class.from_pretrained(
        folder,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type="single_label_classification",
        torch_dtype="float32",
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    misshapen = [entry[0] for entry in report["mismatched_keys"]]
    wrong = [name for name in [*report["missing_keys"], *misshapen] if not name.startswith(HEAD_PREFIX)]
    if wrong or report["unexpected_keys"]:
        raise UserError(
            f"the weights in {folder} do not fit its configuration: {some([*wrong, *report['unexpected_keys']])}; see scripts/verify.py"
        )
    return model
