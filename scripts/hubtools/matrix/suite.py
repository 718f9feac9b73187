"""The contract suite: what it is given (the kit) and how it runs inside one release.

The kit is a folder made once with the main environment: assembled Hub folders of both models, the recorded tensors, and copies of the
packages. A run sees the kit and a copy of the suite, never the repository.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..packages import PACKAGES, ROOT
from ..staging import PART
from .releases import Environment

SUITE = ROOT / "tests" / "contract"
MEASURE = SUITE.parent / "measure.py"  # how far an output may be from what it should be
GOLDEN = ROOT / "tests" / "golden"
RUN_LIMIT = 900  # seconds; a run takes well under one minute
# Golden configurations are told in the words of the public implementations.
FIELD_NAMES = {"max_num_tokens": "max_position_embeddings"}


@dataclass(frozen=True)
class Variant:
    """One folder of the kit: a golden model, as it is or with a classifier put on it or with other settings."""

    name: str
    package: str
    architecture: str
    golden: str
    classifier: Optional[int] = None  # number of labels of a new head
    recorded: bool = True  # whether the golden outputs hold for it
    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)


def _llava(name: str, architecture: str = "LlavaViTModel", **kwargs) -> Variant:
    return Variant(name, "llavavit", architecture, **{"golden": name, **kwargs})


def _byteformer(name: str, architecture: str = "ByteFormerForImageClassification", **kwargs) -> Variant:
    return Variant(name, "byteformer", architecture, **{"golden": name, **kwargs})


_RAW = {"size": {"shortest_edge": 14}, "crop_size": {"height": 14, "width": 14}, "file_encoding": "fHWC"}
_JPEG = {
    "size": {"shortest_edge": 16},
    "crop_size": {"height": 16, "width": 16},
    "file_encoding": "JPEG",
    "quality": 60,
}
VARIANTS = (
    _llava("llava_vit_image", "LlavaViTForImageClassification", golden="llava_vit_base", classifier=5),
    _llava("llava_vit_video", "LlavaViTForVideoClassification", golden="llava_vit_base", classifier=4),
    _llava(
        "llava_vit_native",
        "LlavaViTForImageClassification",
        golden="llava_vit_base",
        classifier=5,
        processor={"image_processor_type": "LlavaViTImageProcessor", "max_num_patches": 20},
    ),
    _llava("tower_windows"),
    _llava("tower_whole"),
    _llava("llava_vit_base"),
    _llava("llava_vit_positions"),
    _llava("llava_vit_residual_topk"),
    _llava("llava_vit_rms_nohead"),
    _llava("llava_vit_head_dim_96"),
    _byteformer("byteformer_k4_w16", processor=_RAW),
    _byteformer("byteformer_k8_mixed_windows", processor=_JPEG),
    _byteformer(
        "byteformer_k32_sinusoidal",
        "ByteFormerForAudioClassification",
        processor={"file_encoding": "WAV", "sample_dtype": "int16"},
    ),
    _byteformer("byteformer_masked", golden="byteformer_k4_w16", recorded=False, config={"mask_padding": True}),
)


def prepare_kit(kit: Path) -> None:
    """Builds the folders, the recorded tensors, the copied packages and `kit.json` under `kit`, which must not exist yet."""
    (kit / "folders").mkdir(parents=True)
    shutil.copytree(GOLDEN, kit / "recorded", ignore=shutil.ignore_patterns("*.weights.safetensors"))
    for package in PACKAGES.values():
        shutil.copytree(package.folder, kit / "packages" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    entries = [_write_variant(variant, kit) for variant in VARIANTS]
    _write_processed(kit)
    (kit / "kit.json").write_text(json.dumps({"folders": entries}, indent=1), encoding="utf-8")


def _write_variant(variant: Variant, kit: Path) -> Dict[str, Any]:
    from safetensors.torch import save_file

    from ..assembly.build import build_folder
    from ..assembly.recipes import recipe_from

    settings, weights = _golden_model(variant)
    labels = settings.pop("num_labels", None)
    if variant.architecture.endswith("Classification"):
        settings["id2label"] = {index: f"label {index}" for index in range(labels)}
        settings["label2id"] = {label: index for index, label in settings["id2label"].items()}
    content = {
        "package": variant.package,
        "architecture": variant.architecture,
        "config": settings,
        "processor": variant.processor,
    }
    recipe = recipe_from(variant.name, content)
    checkpoint_file = kit / f"{variant.name}.safetensors"
    save_file(weights, checkpoint_file, metadata={"format": "pt"})
    build_folder(kit / "folders" / variant.name, recipe, checkpoint_file)
    checkpoint_file.unlink()
    return {
        "name": variant.name,
        "package": variant.package,
        "architecture": variant.architecture,
        "auto_class": recipe.auto_class,
        "prefix": PACKAGES[variant.package].model_type,
        "recorded": variant.golden if variant.recorded else None,
    }


def _golden_model(variant: Variant) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Configuration and checkpoint of a golden model in its own layout, with the variant's changes."""
    import torch
    from safetensors.torch import load_file

    described = json.loads((GOLDEN / f"{variant.golden}.json").read_text(encoding="utf-8"))["config"]
    settings = {FIELD_NAMES.get(key, key): value for key, value in described.items()}
    weights = load_file(GOLDEN / f"{variant.golden}.weights.safetensors")
    if variant.classifier is not None:
        settings["num_labels"] = variant.classifier
        weights = {f"{PACKAGES[variant.package].base_prefix}{key}": value for key, value in weights.items()}
        generator = torch.Generator().manual_seed(variant.classifier)
        weights["classifier.weight"] = (
            torch.randn(variant.classifier, settings["hidden_size"], generator=generator) * 0.1
        )
        weights["classifier.bias"] = torch.randn(variant.classifier, generator=generator)
    settings.update(variant.config)
    return settings, weights


def _write_processed(kit: Path) -> None:
    """An image, a waveform, and what ByteFormer's processors make of them in the main environment."""
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    ramp = torch.arange(20 * 36 * 3).reshape(20, 36, 3)
    pixels = ((ramp * 7 + (ramp // 108) ** 2 * 5) % 256).to(torch.uint8)
    Image.fromarray(pixels.numpy(), "RGB").resize((72, 40), Image.NEAREST).save(kit / "picture.png")
    # Small enough for every model's position table, large enough for the pixel checks.
    image = Image.open(kit / "picture.png").convert("RGB")
    image.quantize(4).convert("RGB").resize((48, 40), Image.NEAREST).save(kit / "image.png", optimize=True)
    (kit / "picture.png").unlink()
    tensors = {"wave": torch.sin(torch.arange(1600) * 0.2) * torch.linspace(0.2, 0.9, 1600)}
    byteformer = PACKAGES["byteformer"].load()
    for name in ("byteformer_k4_w16", "byteformer_k8_mixed_windows"):
        processor = byteformer.ByteFormerImageProcessor.from_pretrained(str(kit / "folders" / name))
        tensors[f"{name}.image"] = processor(Image.open(kit / "image.png"), return_tensors="pt")["input_ids"]
        tensors[f"{name}.file"] = processor((kit / "image.png").read_bytes(), return_tensors="pt")["input_ids"]
    extractor = byteformer.ByteFormerFeatureExtractor.from_pretrained(
        str(kit / "folders" / "byteformer_k32_sinusoidal")
    )
    encoded = extractor(tensors["wave"].numpy(), sampling_rate=16000, return_tensors="pt")["input_ids"]
    tensors["byteformer_k32_sinusoidal.wave"] = encoded
    save_file({key: value.contiguous() for key, value in tensors.items()}, kit / "processed.safetensors")


def fingerprint() -> str:
    """A hash of everything that decides a result: the packages' code, the suite, the recorded tensors, this file."""
    files = [Path(__file__), MEASURE, *SUITE.glob("*.py"), *GOLDEN.glob("*")]
    for package in PACKAGES.values():
        files += package.folder.glob("*.py")
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(ROOT)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def run_suite(
    environment: Environment, kit: Path, selection: Optional[str] = None, short: bool = False
) -> Dict[str, Any]:
    """Runs the suite inside one release: a fresh process, an empty HF_HOME, offline, no repository on the path, another folder.

    Args:
        environment: the release.
        kit: made by `prepare_kit`.
        selection: a `pytest -k` expression.
        short: load from Hub folders alone, not by classes imported from the packages, too.

    Returns:
        status, passed, failed and not_applicable (test -> reason), seconds, packages.
    """
    with tempfile.TemporaryDirectory(prefix="contract-") as scratch:
        suite, report, home = Path(scratch) / "suite", Path(scratch) / "report.json", Path(scratch) / "home"
        shutil.copytree(SUITE, suite, ignore=shutil.ignore_patterns("__pycache__", "*.json", f"*{PART}"))
        shutil.copy(MEASURE, suite)
        home.mkdir()
        command = [
            str(environment.python),
            "-m",
            "pytest",
            str(suite),
            "--rootdir",
            str(suite),
            "-q",
            "--no-header",
            "--tb=short",
        ]
        command += [
            "-p",
            "no:cacheprovider",
            "--basetemp",
            str(Path(scratch) / "tmp"),
            *(["-k", selection] if selection else []),
        ]
        started = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                cwd=home,
                env={**_clean_environment(kit, report, home), **({"CONTRACT_SHORT": "1"} if short else {})},
                capture_output=True,
                text=True,
                timeout=RUN_LIMIT,
            )
            output = done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            output = f"no end within {RUN_LIMIT} s"
        seconds = time.perf_counter() - started
        if not report.is_file():
            return _result({}, environment, seconds, {"the suite did not run": output.strip()[-500:]}, output)
        return _result(json.loads(report.read_text(encoding="utf-8"))["tests"], environment, seconds, {}, output)


def _clean_environment(kit: Path, report: Path, home: Path) -> Dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "TRANSFORMERS_", "PYTHON", "PYTEST", "HUGGINGFACE", "CONTRACT_"))
    }
    return {
        **kept,
        "CONTRACT_KIT": str(kit),
        "CONTRACT_REPORT": str(report),
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "TOKENIZERS_PARALLELISM": "false",
    }


def _result(
    tests: Dict[str, Dict[str, str]], environment: Environment, seconds: float, failed: Dict[str, str], output: str
) -> Dict[str, Any]:
    outcomes: Dict[str, List[Tuple[str, str]]] = {"passed": [], "failed": list(failed.items()), "not applicable": []}
    for name, entry in tests.items():
        outcomes[entry["outcome"]].append((name, entry["reason"]))
    nothing_ran = not outcomes["passed"]
    return {
        "status": "failed" if outcomes["failed"] or nothing_ran else "passed",
        "passed": len(outcomes["passed"]),
        "failed": dict(outcomes["failed"]),
        "not_applicable": dict(outcomes["not applicable"]),
        "seconds": round(seconds, 1),
        "packages": environment.packages,
        "output": output,
    }
