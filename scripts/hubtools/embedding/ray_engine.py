"""The same stages on Ray Data: tasks decode, actors hold the model, and this process writes the shards.

Ray places, retries and restarts; the windows come back in their order, so that a lost node changes no byte. Repository, model
and inputs lie at the same paths on every node.
"""

import logging
import os
import pickle
import sys
from itertools import islice
from typing import Any, Dict, Iterable, Iterator, Optional, Tuple

from ..errors import UserError, system_errors_told
from ..facts import ROOT
from ..isolation import SCRIPTS
from .computing import Embedder
from .decoding import decode
from .reading import Careful
from .windows import Window

SPAN = 2000  # windows of one execution, some 250,000 pictures: what Ray is told of at once


def decode_window(row: Dict[str, Any], read: Careful, folder: str) -> Dict[str, Any]:
    """Stage one: a window's inputs become what the model takes, in a process that may end without harm.

    Args:
        row: with the window, pickled, and its number.
        read: reads one input.
        folder: from which relative paths start; a running cluster's processes have another of their own.
    """
    os.chdir(folder)
    ((_, items),) = decode([pickle.loads(row["window"])], read, workers=1)
    return {"number": row["number"], "items": pickle.dumps(items, protocol=5)}


class ComputeWindow:
    """Stage two: an actor with the model; its path may be relative to `folder`."""

    def __init__(self, job: Any, device: str, folder: str):
        os.chdir(folder)
        self.embedder = Embedder(job.model, job.settings, device, job.threads)

    def __call__(self, row: Dict[str, Any]) -> Dict[str, Any]:
        return {"number": row["number"], "rows": pickle.dumps(self.embedder(pickle.loads(row["items"])), protocol=5)}


def compute_on_ray(windows: Iterable[Window], read: Careful, job: Any) -> Iterator[tuple]:
    """The windows with their results, in order.

    Args:
        windows: what is left to do.
        read: reads one input.
        job: model, settings, device and threads; see run.Job.

    Raises:
        UserError: no cluster, or what Ray could not do, and what a task could not, after all of Ray's attempts.
    """
    import ray

    with system_errors_told("could not join or start Ray"):
        begin(ray)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # not one that says only that there was one
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is raised
    remaining = iter(windows)
    while span := list(islice(remaining, SPAN)):
        try:
            yield from _compute_span(ray, span, read, job)
        except ray.exceptions.RayError as error:
            raise UserError(f"Ray: {last_line(error)}; what is finished stays") from error


def last_line(error: Exception) -> str:
    """What an error of a task is about: before it Ray's message has the stack trace of the other process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def begin(ray: Any) -> None:
    """Joins the cluster that RAY_ADDRESS names, or the one that runs here, or starts Ray on this machine."""
    if ray.is_initialized():
        return
    paths = os.pathsep.join([SCRIPTS, str(ROOT), *(entry for entry in sys.path if os.path.isabs(entry))])
    settings = {"env_vars": {"PYTHONPATH": paths}}
    ray.init(runtime_env=settings, logging_level="ERROR", log_to_driver=False, include_dashboard=False)


def _compute_span(ray: Any, span: list, read: Careful, job: Any) -> Iterator[tuple]:
    rows = [{"number": number, "window": pickle.dumps(window)} for number, window in enumerate(span)]
    # A block for each window: a block is what Ray hands on, and holds at once.
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data = data.map(decode_window, fn_kwargs={"read": read, "folder": os.getcwd()}, num_cpus=1)
    device, count, resources = _models(ray, job.device)
    pool = ray.data.ActorPoolStrategy(size=min(count, len(span)))
    data = data.map(ComputeWindow, fn_constructor_args=[job, device, os.getcwd()], compute=pool, **resources)
    for number, row in enumerate(data.iter_rows()):
        if row["number"] != number:
            raise RuntimeError(f"Ray gave window {row['number']} in place of {number}")
        yield span[number], pickle.loads(row["rows"])


def _models(ray: Any, device: Optional[str]) -> Tuple[str, int, Dict[str, Any]]:
    """Where models compute, how many there are, and what each takes of a node: GPUs where Ray has them."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpus and (device is None or device.startswith("cuda")):
        return "cuda", gpus, {"num_gpus": 1}
    nodes = sum(node["Alive"] for node in ray.nodes())
    # No CPU of its own: it would wait for one that the decoding tasks leave, and be fused with them otherwise.
    return device or "cpu", nodes, {"num_cpus": 0}
