"""The two model packages as data: which files they ship, which classes, and how the Auto classes find them."""

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Mapping, Optional, Tuple

from .errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Package:
    """One model package. `models` maps each Auto class to the class that serves it, `processors` likewise."""

    name: str
    model_type: str
    base_prefix: str  # what transformers puts before the base model's names inside a model with a head
    config_class: str
    configuration: str
    modeling: str
    models: Mapping[str, str]
    processors: Mapping[str, Tuple[str, str]] = field(default_factory=dict)  # Auto class -> (module, class)

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    def auto_class_of(self, architecture: str) -> str:
        for auto_class, class_name in self.models.items():
            if class_name == architecture:
                return auto_class
        raise UserError(f"architecture {architecture!r} is not in package {self.name!r}; known: {', '.join(sorted(self.models.values()))}")

    def auto_map(self, processor: Optional[str] = None) -> dict:
        """The `auto_map` of config.json; `processor` names the Auto class of a processor that ships with the model."""
        entries = {"AutoConfig": f"{self.configuration}.{self.config_class}"}
        entries.update({auto: f"{self.modeling}.{cls}" for auto, cls in self.models.items()})
        if processor in self.processors:
            module, cls = self.processors[processor]
            entries[processor] = f"{module}.{cls}"
        return entries

    def load(self) -> ModuleType:
        """Imports the package of this repository, never another installed one."""
        if sys.path[:1] != [str(ROOT)]:
            sys.path.insert(0, str(ROOT))
        return importlib.import_module(self.name)


PACKAGES = {
    "llavavit": Package(
        name="llavavit",
        model_type="llava_vit",
        base_prefix="llava_vit.",
        config_class="LlavaViTConfig",
        configuration="configuration_llava_vit",
        modeling="modeling_llava_vit",
        models={
            "AutoModel": "LlavaViTModel",
            "AutoModelForImageClassification": "LlavaViTForImageClassification",
            "AutoModelForVideoClassification": "LlavaViTForVideoClassification",
        },
    ),
    "byteformer": Package(
        name="byteformer",
        model_type="byteformer",
        base_prefix="byteformer.",
        config_class="ByteFormerConfig",
        configuration="configuration_byteformer",
        modeling="modeling_byteformer",
        models={
            "AutoModel": "ByteFormerModel",
            "AutoModelForImageClassification": "ByteFormerForImageClassification",
            "AutoModelForAudioClassification": "ByteFormerForAudioClassification",
        },
        processors={
            "AutoImageProcessor": ("image_processing_byteformer", "ByteFormerImageProcessor"),
            "AutoFeatureExtractor": ("feature_extraction_byteformer", "ByteFormerFeatureExtractor"),
        },
    ),
}


def package_named(name: str) -> Package:
    if name not in PACKAGES:
        raise UserError(f"unknown package {name!r}; known: {', '.join(PACKAGES)}")
    return PACKAGES[name]
