"""Which checks a folder gets, in which order and in which process."""

import contextlib
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

from ..assembly.origin import Origin
from ..errors import UserError
from ..packages import Package
from .check import PASS, Check, CheckFailed, CheckList, Progress
from .child import Child, run_beside, start_beside, start_isolated
from .exported import exported_files
from .files import (
    architecture_of,
    check_amount,
    check_code,
    check_config,
    check_files,
    check_sizes,
    check_values,
    code_in_use,
    package_of,
    read_config,
    refuse_quantised,
    why_no_example,
)  # fmt: skip
from .references import split_reference
from .weight_files import DamagedFile, Tensor, read_tensors

RELOAD = "round trip: reload"
REFERENCE_CHECKS = ["reference: configuration", "reference: structure", "reference: forward"]
# Entries of config.json that say nothing about what a model computes, so that a reference need not know them.
GENERIC_KEYS = (
    "architectures",
    "auto_map",
    "torch_dtype",
    "dtype",
    "model_type",
    "transformers_version",
    "id2label",
    "label2id",
    "problem_type",
)


def verify_folder(
    folder,
    checkpoint=None,
    reference: Optional[str] = None,
    progress: Progress = None,
    run_foreign_code: bool = False,
    given_files: Sequence[Path] = (),
) -> List[Check]:
    """Runs every check on a Hub folder.

    Args:
        folder: the folder, as `assemble.py` or `save_pretrained` wrote it.
        checkpoint: what the folder was made from, an Origin or a path; its weights are compared with the folder's.
        reference: "FILE.py:NAME", the user's own original: `NAME(config: dict) -> torch.nn.Module`.
        progress: called with each check as soon as it is known.
        run_foreign_code: whether to load a folder whose code is not the package's. Not for what comes from others.
        given_files: pictures, sounds or clips, for which exported files must give a classifier's own labels.

    Returns:
        The checks in order; the folder is good when `failures()` finds none among them.

    Raises:
        UserError: no such folder, or not a model's; an unusable checkpoint or reference file.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    origin = Origin.of(checkpoint)
    if origin.checkpoint is not None and not origin.checkpoint.exists():
        raise UserError(f"checkpoint {origin.checkpoint} does not exist")
    verification = _Verification(folder, origin, split_reference(reference), CheckList(progress))
    verification.given_files = [str(Path(file).resolve()) for file in given_files]
    verification.run(run_foreign_code)
    return verification.checks.checks


class _Verification:
    """One run over one folder."""

    def __init__(
        self, folder: Path, origin: Union[Origin, Path, None], reference: Optional[Tuple[str, str]], checks: CheckList
    ):
        self.folder = folder
        self.origin = Origin.of(origin)
        self.reference = reference
        self.checks = checks
        self.config: Dict = {}
        self.package: Optional[Package] = None
        self.tensors: Dict[str, Tensor] = {}
        self.sound = True
        self.given_files: List[str] = []
        self.exported = [f"exported: {name}" for name in exported_files(folder)]

    def run(self, run_foreign_code: bool) -> None:
        self.look(run_foreign_code)
        if not self.sound:
            self.checks.skip(self.planned(), "not run: the checks above must pass first")
            return
        with tempfile.TemporaryDirectory(prefix="verify-", dir=self.roomy_folder()) as workdir:
            self.load(Path(workdir))

    # -- without loading anything

    def look(self, run_foreign_code: bool) -> None:
        self.need("files: configuration", self.check_identity)
        if not self.checks.run("files: known and safe", lambda: check_files(self.folder, self.package)):
            self.checks.skip(self.exported, "not run: files: known and safe did not pass")
            self.exported = []  # reading one may run what is pickled in it
        self.need("files: weights", self.check_weight_files)
        if self.package is None:
            self.checks.skip(["files: metadata", "files: code"], "not run: the model is not known")
            return
        self.checks.run("files: metadata", lambda: check_config(self.folder, self.config, self.package, self.tensors))
        own_code = self.checks.run("files: code", lambda: check_code(self.folder, self.config, self.package))
        self.sound = self.sound and (own_code or run_foreign_code)

    def need(self, name: str, check) -> None:
        self.sound = self.checks.run(name, check) and self.sound

    def check_identity(self) -> str:
        self.config = read_config(self.folder)
        package = package_of(self.config)
        refuse_quantised(self.config)
        architecture = architecture_of(self.config, package)
        check_values(self.folder, self.config, package)
        self.package = package
        return f"{architecture} of package {package.name}"

    def check_weight_files(self) -> str:
        try:
            self.tensors = read_tensors(self.folder)
        except DamagedFile as damage:
            raise CheckFailed(str(damage)) from damage
        if self.package:
            check_amount(self.config, self.package, self.tensors)
        files = sorted({tensor.file for tensor in self.tensors.values()})
        if self.package:
            check_sizes(self.config, self.package, self.tensors)
        return (
            f"{len(self.tensors)} tensors, {self.size / 1e6:,.1f} MB in {len(files)} "
            f"file{'s' * (len(files) > 1)}, whole"
        )

    @property
    def size(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    # -- in child processes

    def planned(self) -> List[str]:
        """The checks that run in child processes."""
        return [*self.inspections(), RELOAD, "weights: checkpoint", *REFERENCE_CHECKS]

    def inspections(self) -> List[str]:
        subjects = self.package.forwards.subjects if self.package else ()
        base = ["load: base model"] if self.package and self.auto_class != "AutoModel" else []
        loads = ["weights: finite", "load: configuration", "load: processor", *base, "load: model", "weights: loaded"]
        forwards = [f"forward: {subject}" for subject in subjects]
        return [*loads, "round trip: save", *forwards, *self.exported, "example: runs"]

    @property
    def auto_class(self) -> str:
        return self.package.auto_class_of(self.config["architectures"][0])

    def load(self, workdir: Path) -> None:
        job = self.job(workdir)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(start_isolated({**job, "checks": [*self.inspections(), RELOAD]}, workdir))
            # Beside it: importing torch takes longer than a small folder's checks, and this one keeps a tensor at a
            # time.
            checkpoint = stack.enter_context(self.start_comparison(job, workdir)) if self.origin.checkpoint else None
            values = folder.follow(self.checks)
            self.account_for_reload()
            shutil.rmtree(job["saved"], ignore_errors=True)
            changed = self.compare_checkpoint(checkpoint)
        self.compare_reference(job, workdir, values.get("config"), changed)

    def job(self, workdir: Path) -> dict:
        package = self.package
        room = shutil.disk_usage(workdir).free
        needed = int(1.1 * self.size) + 10**7
        return {
            "folder": str(self.folder),
            "checkpoint": str(self.origin.checkpoint.resolve()) if self.origin.checkpoint else None,
            "key": self.origin.key,
            "prefix": self.origin.prefix,
            "package": package.name,
            "model_type": package.model_type,
            "config_class": package.config_class,
            "base_prefix": package.base_prefix,
            "architecture": self.config["architectures"][0],
            "auto_class": self.auto_class,
            "no_example": why_no_example(self.folder),
            "given_files": self.given_files,
            "code": sorted(code_in_use(self.config, package)),
            "tensors": [asdict(tensor) for tensor in self.tensors.values()],
            "saved": str(workdir / "saved"),
            "exchange": str(workdir / "exchange.pt"),
            "no_room": f"not run: saving needs {needed / 1e9:.1f} GB, {workdir} has {room / 1e9:.1f} GB"
            if room < needed
            else "",
        }

    def roomy_folder(self) -> Optional[str]:
        """Where temporary files go: the usual place (None), or beside the folder where only that has room for the
        weights."""
        needed = int(1.1 * self.size) + 10**7
        beside = self.folder.parent
        if shutil.disk_usage(tempfile.gettempdir()).free >= needed or shutil.disk_usage(beside).free < needed:
            return None
        return str(beside)

    def account_for_reload(self) -> None:
        """Says why nothing was loaded once more, where that is so."""
        status = {check.name: check.status for check in self.checks.checks}
        needed = [name for name in ("weights: loaded", "round trip: save") if status[name] != PASS]
        if RELOAD not in status and needed:
            self.checks.skip([RELOAD], f"not run: {needed[0]} did not pass")

    def start_comparison(self, job: dict, workdir: Path) -> Child:
        return start_beside("checkpoint", {**job, "checks": ["weights: checkpoint"]}, workdir)

    def compare_checkpoint(self, comparison: Optional[Child]) -> List[str]:
        """Gives the names of the tensors that differ from the checkpoint's."""
        if comparison is None:
            self.checks.skip(["weights: checkpoint"], "no --checkpoint given")
            return []
        return comparison.follow(self.checks).get("changed", [])

    def compare_reference(self, job: dict, workdir: Path, config: Optional[dict], changed: List[str]) -> None:
        if self.reference is None:
            self.checks.skip(REFERENCE_CHECKS, "no --reference given")
            return
        if config is None:
            self.checks.skip(REFERENCE_CHECKS, "not run: the folder's configuration was not loaded")
            return
        own_keys = [key for key in self.config if key not in GENERIC_KEYS and not key.startswith("_")]
        job = {**job, "reference": self.reference, "config": config, "own_keys": own_keys, "changed": changed}
        run_beside("reference", {**job, "checks": REFERENCE_CHECKS}, self.checks, workdir)
