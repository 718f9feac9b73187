"""Low-rank adapters through PEFT."""

from typing import Any

from ..errors import UserError
from ..packages import package_named


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
