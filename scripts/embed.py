#!/usr/bin/env python3
"""Embeds a collection: images, videos, sounds or files of any kind go in, Parquet shards of vectors come out.

    python scripts/embed.py my-llava-vit photos/ clips/ --output embeddings
    python scripts/embed.py my-llava-vit list.csv shards/*.tar hub-dataset/*.parquet --output embeddings --workers 4
    python scripts/embed.py my-byteformer files/ --output labels --what labels
    python scripts/embed.py my-llava-vit shards/*.tar --output embeddings --engine ray

The same command goes on where a run was interrupted, adds what has come, and does again what has changed. What cannot be
read is listed in OUTPUT/failed.parquet, and makes the exit code 3. See docs/embedding.md.
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import importlib
import os
import re
from pathlib import Path

from hubtools.errors import ArgumentParser, UserError, run_script, some

FAILED_CODE = 3
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="embed.py", description=__doc__)
    parser.add_argument("model", help="a Hub folder, as scripts/assemble.py makes it, or namespace/name on the Hub")
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="files and folders; lists of paths (.txt, one a line; .csv; .parquet); WebDataset shards (.tar); Parquet files with a column of bytes",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the folder of embeddings, made or gone on with"
    )
    what = parser.add_argument_group("what comes out (an existing output keeps what it was begun with)")
    what.add_argument(
        "--what",
        choices=("vectors", "tokens", "labels"),
        default="vectors",
        help="one pooled vector an input, an array of all its tokens, or a classifier's labels and scores (default vectors)",
    )
    what.add_argument("--top", type=int, default=5, metavar="K", help="labels kept of an input, best first (default 5)")
    what.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="in which the model computes (default float32)",
    )
    what.add_argument(
        "--batch-patches",
        type=int,
        default=16384,
        metavar="N",
        help="patches (of bytes: bytes) that are computed at once; one input may have more (default 16384)",
    )
    what.add_argument(
        "--shard-size",
        type=int,
        metavar="N",
        help="inputs of a shard; a video counts as 16 (default 4096, of tokens 256)",
    )
    what.add_argument(
        "--native-resolution", action="store_true", help="pictures at their own size and aspect, in whole patches"
    )
    what.add_argument(
        "--selection",
        choices=("codec", "difference", "none"),
        help="of a video's patches (default: as the folder's processor has it)",
    )
    what.add_argument(
        "--read-files-as",
        choices=("auto", "pictures", "sounds", "bytes"),
        default="auto",
        help="for ByteFormer: decode and encode by the folder's recipe, or take files as they are (default: as its pipeline does)",
    )
    what.add_argument(
        "--keep-damaged",
        action="store_true",
        help="embed what can be decoded of a damaged video, and do not list it as failed",
    )
    what.add_argument("--column", metavar="NAME", help="of CSV and Parquet files: with the paths, or with the bytes")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that decode (default: the cores, 8 at most; 0: the main process)",
    )
    how.add_argument("--device", help="cpu, cuda, cuda:1, … (default: cuda where there is one)")
    how.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of the model on the CPU (default: the cores); another number, other last bits",
    )
    how.add_argument(
        "--timeout", type=float, default=300, metavar="SECONDS", help="that one input may take to be read (default 300)"
    )
    how.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="this machine, or Ray Data (default local)"
    )
    how.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    return parser


def main(argv=None) -> int:
    arguments = build_parser().parse_args(argv)
    check_arguments(arguments)
    # Read once, when torch is loaded: threads that wait for one another leave their cores to the processes that decode.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    check_installed(arguments.engine)
    # Imported late: torch and transformers take seconds that a mistyped command should not cost.
    from hubtools.embedding.run import embed

    outcome = embed(job_of(arguments))
    if outcome.skipped:
        kinds = [
            f"{count:,} of {suffix}"
            for suffix, count in sorted(outcome.skipped.items(), key=lambda pair: (-pair[1], pair[0]))
        ]
        print(f"passed over, being nothing that the model reads: {some(kinds)}")
    found = outcome.found
    twice = f", {found.repeated:,} named twice" if found.repeated else ""
    print(
        f"inputs: {found.new:,} new, {found.changed:,} changed, {found.unchanged:,} known{twice}; {outcome.done:,} done in this run"
    )
    failed = f", {outcome.failed:,} failed (see {arguments.output / 'failed.parquet'})" if outcome.failed else ""
    print(
        f"{arguments.output}: {outcome.embedded:,} embedded in {outcome.shards:,} shard{'s' * (outcome.shards != 1)}{failed}"
    )
    return FAILED_CODE if outcome.failed else 0


def check_arguments(arguments) -> None:
    for name in ("batch_patches", "shard_size", "top", "threads", "timeout"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} must be more than 0, got {value}")
    if arguments.workers is not None and arguments.workers < 0:
        raise UserError(f"--workers must not be negative, got {arguments.workers}")


def check_installed(engine: str) -> None:
    """What embedding needs beside the packages; a missing one is told in one line."""
    for module in ("pyarrow", *(["ray"] if engine == "ray" else [])):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"embed.py needs {module}, which cannot be imported ({error}); run: pip install -r requirements-scale.txt"
            ) from error


def job_of(arguments):
    from hubtools.embedding.model import Settings
    from hubtools.embedding.run import Job

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shard_size = arguments.shard_size or (256 if arguments.what == "tokens" else 4096)
    settings = Settings(
        what=arguments.what,
        dtype=arguments.dtype,
        batch_patches=arguments.batch_patches,
        shard_size=shard_size,
        read_files_as=arguments.read_files_as,
        selection=arguments.selection,
        native_resolution=arguments.native_resolution,
        keep_damaged=arguments.keep_damaged,
        top=arguments.top,
    )
    return Job(
        model=model_folder(arguments.model),
        inputs=arguments.inputs,
        output=arguments.output,
        settings=settings,
        column=arguments.column,
        engine=arguments.engine,
        device=arguments.device,
        threads=arguments.threads or cores,
        workers=min(cores, 8) if arguments.workers is None else arguments.workers,
        seconds=arguments.timeout,
        retry_failed=arguments.retry_failed,
    )


def model_folder(name: str) -> Path:
    """The folder of that name, else a verified download of the repository of that name."""
    if Path(name).exists() or not REPO_ID.fullmatch(name):
        return Path(name)
    from hubtools.hub.download import fetch_verified
    from hubtools.hub.secrets import take_token

    return fetch_verified(name, token=take_token())


if __name__ == "__main__":
    run_script(main)
