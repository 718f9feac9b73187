"""Compares a folder's weights with the checkpoint they were made from, one tensor at a time."""

from typing import Dict, Mapping

from hubtools.assembly.checkpoint import Checkpoint, open_checkpoint
from hubtools.assembly.layouts import to_hub_layout
from hubtools.errors import UserError

from .protocol import CheckFailed, Reporter, read_job
from .tensors import Differences, read_tensor


def compare(job: Mapping, reporter: Reporter) -> str:
    """Every tensor of the folder is, bit for bit, what the checkpoint maps to, converted to the folder's type."""
    entries: Dict[str, Mapping] = {entry["name"]: entry for entry in job["tensors"]}
    with open_checkpoint(job["checkpoint"], job.get("key"), job.get("prefix")) as checkpoint:
        parts = mapping(job["package"], checkpoint, entries)
        differences, converted = Differences(), set()
        for name, part in parts.items():
            found, expected = read_tensor(job["folder"], entries[name]), part.read(checkpoint)
            differences.add(name, found, expected)
            if found.dtype != expected.dtype:
                converted.add(f"{str(expected.dtype)[6:]} to {str(found.dtype)[6:]}")
    reporter.send("value", name="changed", value=differences.names)
    note = f", after conversion from {' and '.join(sorted(converted))}" if converted else ""
    if differences.problems:
        raise CheckFailed(differences.describe(len(parts), f"differ from the checkpoint's{note}"))
    return f"all {len(parts)} tensors are the checkpoint's, bit for bit{note}"


def mapping(package: str, checkpoint: Checkpoint, entries: Mapping) -> Mapping:
    try:
        return to_hub_layout(package, checkpoint.names(), entries)[1]
    except UserError as error:
        raise CheckFailed(str(error)) from error


def main() -> None:
    job, reporter = read_job(), Reporter()
    try:
        reporter.run(job["checks"], {"weights: checkpoint": lambda: compare(job, reporter)})
    except UserError as error:
        reporter.send("usage", message=str(error))
    reporter.send("done")


if __name__ == "__main__":
    main()
