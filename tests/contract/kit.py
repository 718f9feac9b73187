"""What the contract tests are given: assembled Hub folders, recorded tensors and copies of the packages, all under $CONTRACT_KIT.

Nothing here imports the repository: the suite runs wherever there is torch and any supported transformers.
"""

import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import torch
import transformers
from measure import OUTPUTS as TOLERANCE  # noqa: F401, the tests take them from here
from measure import relative_error as error  # noqa: F401
from safetensors.torch import load_file

KIT = Path(os.environ["CONTRACT_KIT"])
# Remote code through an Auto class, or the class imported from the package; a short run has the first alone.
ORIGINS = ("hub",) if "CONTRACT_SHORT" in os.environ else ("hub", "package")
Case = Tuple[Dict[str, torch.Tensor], Dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Folder:
    """One assembled Hub folder of the kit."""

    name: str
    package: str
    architecture: str
    auto_class: str
    prefix: str  # of the backbone's keys in a model with a head
    recorded: Optional[str] = None  # name of the recorded cases that hold for it

    @property
    def path(self) -> Path:
        return KIT / "folders" / self.name

    @property
    def has_classifier(self) -> bool:
        return self.auto_class != "AutoModel"

    @property
    def weights(self) -> Dict[str, torch.Tensor]:
        return load_file(self.path / "model.safetensors")

    @property
    def cases(self) -> Dict[str, Case]:
        """Recorded inputs and outputs by case: `image.in.pixel_values`, `image.out.last_hidden_state`, ..."""
        cases: Dict[str, Case] = {}
        for key, tensor in load_file(KIT / "recorded" / f"{self.recorded}.cases.safetensors").items():
            case, side, name = key.split(".", 2)
            if self.architecture.endswith("VideoClassification") and name == "pixel_values" and tensor.dim() == 4:
                tensor = tensor.unsqueeze(2)  # a video head takes an image as a clip of one frame
            cases.setdefault(case, ({}, {}))[0 if side == "in" else 1][name] = tensor
        return cases

    @property
    def inputs(self) -> Dict[str, torch.Tensor]:
        """The first recorded case's inputs."""
        return next(iter(sorted(self.cases.items())))[1][0]


FOLDERS: List[Folder] = [
    Folder(**entry) for entry in json.loads((KIT / "kit.json").read_text(encoding="utf-8"))["folders"]
]
RECORDED = [folder for folder in FOLDERS if folder.recorded]
CLASSIFIERS = [folder for folder in FOLDERS if folder.has_classifier]
PAIR = [next(f for f in FOLDERS if f.package == package and f.has_classifier) for package in ("llavavit", "byteformer")]


def folder(name: str) -> Folder:
    return next(entry for entry in FOLDERS if entry.name == name)


def package_class(package: str, name: str) -> type:
    """A class imported from the package as a plain module, the way a project that vendors it does."""
    packages = str(KIT / "packages")
    if packages not in sys.path:
        sys.path.insert(0, packages)
    return getattr(importlib.import_module(package), name)


def auto_image_processor(not_applicable):
    """transformers.AutoImageProcessor; on some releases the class itself is a stand-in that asks for torchvision."""
    if (
        "torchvision" in getattr(transformers.AutoImageProcessor, "_backends", ())
        and not transformers.utils.is_torchvision_available()
    ):
        not_applicable(
            "this release has no AutoImageProcessor without torchvision; the processor's own class and pipeline() work"
        )
    return transformers.AutoImageProcessor


def load(source, origin: str = "hub", auto_class: Optional[str] = None, path: Optional[Path] = None, **kwargs):
    """Loads a folder in evaluation mode.

    Args:
        source: the `Folder` that says which class belongs to it.
        origin: "hub" for remote code through the Auto class, "package" for the imported class.
        auto_class: an Auto class other than the folder's own ("hub" only).
        path: where to load from instead of `source.path`, such as a saved copy.
        kwargs: for `from_pretrained`.
    """
    path = str(path or source.path)
    if origin == "package":
        loaded = package_class(source.package, source.architecture).from_pretrained(path, **kwargs)
    else:
        loaded = getattr(transformers, auto_class or source.auto_class).from_pretrained(
            path, trust_remote_code=True, **kwargs
        )
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    model.eval()
    return loaded


@torch.no_grad()
def run(model, inputs: Dict[str, torch.Tensor], **kwargs):
    return model(**inputs, **kwargs)


def main_output(output) -> torch.Tensor:
    """The tensor a user reads first: logits where there are any."""
    logits = getattr(output, "logits", None)
    return output.last_hidden_state if logits is None else logits


def assert_same_weights(actual: Dict[str, torch.Tensor], expected: Dict[str, torch.Tensor]) -> None:
    """Same names, same types, same bits."""
    assert sorted(actual) == sorted(expected)
    differing = [
        key
        for key in expected
        if actual[key].dtype != expected[key].dtype or not torch.equal(actual[key], expected[key])
    ]
    assert not differing, f"changed while loading: {differing}"
