"""One run over an output folder: what has come, what is left, and the shards as they are finished."""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

from ..errors import UserError, some, system_errors_told
from ..progress import Tally
from .computing import Embedder, Row, layout_of
from .decoding import decode
from .files import clear_partial, only_one
from .listing import Listing
from .model import Settings, build_reader, describe, read_model_folder
from .plan import LISTS, MANIFEST, SHARDS, Found, Plan
from .reading import Careful, Failure
from .shards import FAILED, Footer, Shards
from .windows import Window, windows_of

Computed = Tuple[Window, List[Union[Row, Failure]]]
Engine = Callable[[Iterable[Window]], Iterator[Computed]]
KEPT = "what is finished stays; the same command goes on from there"


@dataclass(frozen=True)
class Job:
    """What the command line asks for.

    Attributes:
        model: a Hub folder.
        inputs: files, folders, lists and shards.
        output: folder of the embeddings.
        settings: what decides about the bytes.
        column: of a CSV or Parquet list.
        engine: "local" or "ray".
        device: of the model; None for a GPU where there is one.
        threads: of the model on the CPU.
        workers: processes that decode.
        seconds: that an input may take to be read.
        retry_failed: try again what failed before.
    """

    model: Path
    inputs: Sequence[Path]
    output: Path
    settings: Settings
    column: Optional[str]
    engine: str
    device: Optional[str]
    threads: int
    workers: int
    seconds: float
    retry_failed: bool


@dataclass(frozen=True)
class Outcome:
    """What the output holds after a run.

    Attributes:
        embedded, failed: inputs, of all runs.
        done: inputs that this run has dealt with.
        shards: files.
        found: what the listing showed.
        skipped: files of other kinds, by suffix.
    """

    embedded: int
    failed: int
    done: int
    shards: int
    found: Found
    skipped: Dict[str, int]


def embed(job: Job) -> Outcome:
    """Brings the output up to date with the inputs.

    Raises:
        UserError: an option, model, input or output that does not do; a full disk.
    """
    quieten()
    recipe, config = read_model_folder(job.model, job.settings)
    reader = build_reader(job.model, recipe, config, job.settings)
    listing = Listing(job.inputs, reader.suffixes, job.column, leave_out=job.output)
    check_folder(job.output)
    identity = {"model": describe(job.model, recipe), "options": {**asdict(job.settings), "column": job.column}}
    with system_errors_told(f"could not write {job.output}", KEPT):
        job.output.mkdir(parents=True, exist_ok=True)
        with only_one(job.output):
            plan = Plan(job.output, identity, job.settings.shard_size)
            for folder in (job.output, job.output / SHARDS, job.output / LISTS):
                clear_partial(folder)
            shards = Shards(plan, layout_of(recipe, config, job.settings), identity["model"]["revision"])
            if job.retry_failed:
                shards.forgive()
            found = plan.update(listing)
            if not plan.shards:
                raise UserError(nothing_found(job.inputs, listing))
            done, footers = finish(plan, shards, engine_of(job, Careful(reader, job.seconds)))
            failed = shards.write_failed(footers)
            gone = sum(footer.gone for footer in footers.values())
    return Outcome(plan.inputs - failed - gone, failed, done, plan.shards, found, dict(listing.skipped))


def quieten() -> None:
    """Remarks on how processors were chosen, and how many workers are many, are for programmers."""
    from transformers.utils import logging

    warnings.filterwarnings("ignore", "This DataLoader will create")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def check_folder(output: Path) -> None:
    """Refuses an output that holds anything but embeddings."""
    if output.is_dir():
        own = {MANIFEST, LISTS, SHARDS, FAILED}
        others = sorted(
            file.name for file in output.iterdir() if file.name not in own and not file.name.startswith(".")
        )
        if (
            others
            or not (output / MANIFEST).exists()
            and (output / SHARDS).exists()
            and any((output / SHARDS).iterdir())
        ):
            what = some(others) if others else f"shards without {MANIFEST}"
            raise UserError(
                f"output {output} holds {what}, which embed.py did not make; name a new folder, or one that it made"
            )
    elif output.exists() or output.is_symlink():
        raise UserError(f"output {output} is no folder; name a new one")


def nothing_found(inputs: Sequence[Path], listing: Listing) -> str:
    skipped = ", ".join(f"{count:,} of {suffix}" for suffix, count in listing.skipped.most_common(5))
    return f"{some(map(str, inputs))}: nothing that the model reads{skipped and f' (passed over: {skipped})'}"


def finish(plan: Plan, shards: Shards, engine: Engine) -> Tuple[int, Dict[int, Footer]]:
    """Makes the shards that are missing or out of date. Gives the inputs dealt with, and the footers of all shards."""
    footers: Dict[int, Footer] = {}
    unfinished = []
    for shard in range(plan.shards):
        footer = shards.footer(shard)
        if footer is not None:
            footers[shard] = footer
        if footer is None or footer.stamp != plan.stamp_of(shard):
            unfinished.append(shard)
    if not unfinished:
        return 0, footers
    left = sum(len(shards.left_to_do(shard, footers.get(shard))) for shard in unfinished)
    tally = Tally("embedding", plan.inputs, plan.inputs - left)
    windows = (
        window for shard in unfinished for window in windows_of(shard, shards.left_to_do(shard, footers.get(shard)))
    )
    results: Dict[int, Union[Row, Failure]] = {}
    try:
        for window, rows in engine(windows):
            results.update(zip(window.rows, rows))
            tally.add(len(rows), sum(isinstance(row, Failure) for row in rows))
            if window.last:
                footers[window.shard] = shards.write(window.shard, results)
                results = {}
    finally:
        tally.close()
    return left, footers


def engine_of(job: Job, read: Careful) -> Engine:
    if job.engine == "ray":
        from .ray_engine import compute_on_ray

        return lambda windows: compute_on_ray(windows, read, job)

    def compute(windows: Iterable[Window]) -> Iterator[Computed]:
        import torch

        device = job.device or ("cuda" if torch.cuda.is_available() else "cpu")
        with system_errors_told(f"could not load {job.model}"):
            embedder = Embedder(job.model, job.settings, device, job.threads)
        for window, items in decode(windows, read, job.workers):
            yield window, embedder(items)

    return compute
