#!/usr/bin/env python3
"""Trains a classifier from a Hub folder with transformers' Trainer; the result is again a Hub folder.

    python scripts/finetune.py my-model --dataset pictures/ --output my-classifier        one sub-folder per class
    python scripts/finetune.py my-model --dataset pictures/ --output my-probe --freeze --augment crop+flip --workers 4
    python scripts/finetune.py my-llava-vit --dataset pictures/ --output my-classifier --native-resolution    no resizing to a square
    python scripts/finetune.py my-llava-vit --dataset clips/ --output my-classifier --workers 4               video files
    python scripts/finetune.py my-byteformer --dataset words/ --output my-words                    WAV files, encoded by the recipe
    python scripts/finetune.py my-byteformer --dataset digits --output digits --epochs 60 --learning-rate 3e-3
    python scripts/finetune.py my-llava-vit --dataset moving-digits --output motion --lora 8
    torchrun --nproc_per_node 2 scripts/finetune.py my-model --dataset pictures/ --output my-classifier

A run that was killed goes on from its last checkpoint when the same command is given again.
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import importlib
import shlex
import shutil
import sys
from pathlib import Path

from hubtools.errors import ArgumentParser, UserError, run_script


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="finetune.py", description=__doc__)
    parser.add_argument(
        "folder",
        type=Path,
        help="the Hub folder to start from, as scripts/assemble.py makes it, with a classifier or without",
    )
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="digits|moving-digits|DIR",
        help="scikit-learn's digits, clips of them moving, or a folder with one sub-folder per class",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="the Hub folder to make; checkpoints go to OUTPUT.training until it is done",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing Hub folder")
    parser.add_argument(
        "--read-files-as",
        choices=("auto", "pictures", "videos", "sounds", "bytes"),
        default="auto",
        help="for a folder: decode pictures, videos or WAV files (ByteFormer's recipe then encodes them), or take files as they are (default auto: decode; videos where none is a picture, as they are where none can be decoded)",
    )
    parser.add_argument(
        "--native-resolution",
        action="store_true",
        help="LLaVA-ViT: pictures keep their size and aspect, in whole patches, packed; without it they are resized to one square",
    )
    parser.add_argument(
        "--max-num-patches",
        type=int,
        metavar="N",
        help="with --native-resolution: a picture of more patches is made smaller (default 1024, or the folder's)",
    )
    parser.add_argument(
        "--augment",
        choices=("none", "flip", "crop", "crop+flip"),
        default="none",
        help="vary the training pictures of a folder: mirror half of them, show random parts (default none)",
    )
    parser.add_argument("--epochs", type=float, default=10, help="passes over the training data (default 10)")
    parser.add_argument("--max-steps", type=int, help="stop after this many steps")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=32,
        help="samples of a forward pass, over all processes, in training and in measuring (default 32)",
    )
    parser.add_argument(
        "--gradient-accumulation-steps",
        type=int,
        default=1,
        metavar="N",
        help="add up the gradients of N batches for a step (default 1)",
    )
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory, for computing activations twice"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that load data, for each that trains (default 0: it loads them itself)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        help="at its highest (default 5e-5, with --lora 3e-4, with --freeze 1e-3; a model without training needs more, such as 1e-3)",
    )
    parser.add_argument("--weight-decay", type=float, default=0.05, help="(default 0.05)")
    parser.add_argument("--label-smoothing", type=float, default=0.0, help="(default 0)")
    parser.add_argument(
        "--warmup", type=float, default=0.1, help="share of the steps in which the learning rate rises (default 0.1)"
    )
    parser.add_argument("--save-steps", type=int, help="steps between checkpoints (default: one after every epoch)")
    parser.add_argument("--seed", type=int, default=0, help="of new weights, order and variations (default 0)")
    parser.add_argument(
        "--freeze", action="store_true", help="train the classifier alone and leave the model as it is (linear probe)"
    )
    parser.add_argument(
        "--lora",
        type=int,
        default=0,
        metavar="RANK",
        help="train low-rank adapters of this rank and merge them at the end (PEFT)",
    )
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--fsdp", action="store_true", help="shard the model over the processes, layer by layer (GPUs)")
    parser.add_argument(
        "--no-resume",
        dest="resume",
        action="store_false",
        help="drop the checkpoints of an unfinished run and start anew",
    )
    parser.add_argument("--keep-checkpoints", action="store_true", help="leave OUTPUT.training in place")
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not check the finished folder (see scripts/verify.py)",
    )
    return parser


def main(argv=None) -> int:
    arguments = build_parser().parse_args(argv)
    check_arguments(arguments)
    check_installed()
    # Imported late: torch and transformers take seconds that a mistyped command should not cost.
    import torch
    from hubtools.finetuning.datasets import build_data
    from hubtools.finetuning.starting_point import (
        freeze_all_but_head,
        load_model,
        load_processor,
        read_folder_recipe,
        with_adapters,
        with_native_resolution,
    )
    from hubtools.finetuning.training import train
    from hubtools.staging import check_output
    from transformers import set_seed
    from transformers.utils import logging

    if arguments.fsdp and not torch.cuda.is_available():
        raise UserError(
            "--fsdp needs GPUs: accelerate shards models over GPUs only, and there is none; without it, processes share the batch on CPUs too"
        )
    check_output(arguments.output, arguments.overwrite, [arguments.folder])
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    recipe = read_folder_recipe(arguments.folder)
    if arguments.native_resolution:
        recipe = with_native_resolution(recipe, arguments.max_num_patches)
    config = recipe.build_config()
    data = build_data(
        arguments.dataset,
        recipe,
        config,
        load_processor(arguments.folder, recipe),
        arguments.seed,
        arguments.read_files_as,
        arguments.augment,
    )
    if arguments.native_resolution and data.task != "image":
        raise UserError(f"--native-resolution is for pictures; {arguments.dataset} holds {data.task} files")
    set_seed(arguments.seed)  # a new classifier, and adapters, are drawn before the Trainer sets its own
    model = load_model(arguments.folder, recipe, data.task, data.labels)
    if arguments.freeze:
        freeze_all_but_head(model)
    if arguments.lora:
        model = with_adapters(model, recipe.package.name, arguments.lora)
    settings = settings_of(arguments)
    room = arguments.output.with_name(arguments.output.name + ".training")
    outcome = train(model, data, settings, room, arguments.resume)
    if outcome.model is None:  # not the main process
        return 0
    return finish(arguments, recipe, outcome, data, settings, room)


def check_arguments(arguments) -> None:
    for name, least in (
        ("epochs", 0),
        ("max_steps", 0),
        ("batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("learning_rate", 0),
        ("save_steps", 0),
        ("max_num_patches", 0),
    ):
        value = getattr(arguments, name)
        if value is not None and not value > least:
            raise UserError(f"--{name.replace('_', '-')} must be more than {least}, got {value}")
    for name in ("warmup", "label_smoothing"):
        if not 0 <= getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be in [0, 1), got {getattr(arguments, name)}")
    if arguments.max_num_patches is not None and not arguments.native_resolution:
        raise UserError("--max-num-patches goes with --native-resolution: it bounds pictures that keep their size")
    if arguments.lora < 0 or arguments.weight_decay < 0 or arguments.workers < 0:
        raise UserError(
            f"--lora, --weight-decay and --workers must not be negative, got {arguments.lora}, {arguments.weight_decay} and {arguments.workers}"
        )
    if arguments.lora and arguments.freeze:
        raise UserError(
            "--lora and --freeze do not go together: one trains adapters in every block, the other the classifier alone"
        )
    if arguments.lora and arguments.fsdp:
        raise UserError("--lora and --fsdp do not go together; adapters are small enough without sharding")


def check_installed() -> None:
    """What training needs beside the packages; a missing one is told in one line."""
    for module, name in (
        ("torch", "torch"),
        ("transformers", "transformers"),
        ("numpy", "numpy"),
        ("PIL", "pillow"),
        ("accelerate", "accelerate"),
    ):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"finetune.py needs {name}, which cannot be imported ({error}); run: pip install {name}"
            ) from error


def default_learning_rate(arguments) -> float:
    """What leaves a trained model standing, and new weights by themselves something to learn with."""
    if arguments.freeze:
        return 1e-3
    return 3e-4 if arguments.lora else 5e-5


def settings_of(arguments):
    from hubtools.finetuning.training import Settings

    return Settings(
        folder=str(arguments.folder),
        dataset=arguments.dataset,
        read_files_as=arguments.read_files_as,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        accumulation=arguments.gradient_accumulation_steps,
        learning_rate=default_learning_rate(arguments) if arguments.learning_rate is None else arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        label_smoothing=arguments.label_smoothing,
        warmup=arguments.warmup,
        max_steps=arguments.max_steps,
        save_steps=arguments.save_steps,
        seed=arguments.seed,
        lora=arguments.lora,
        freeze=arguments.freeze,
        augment=arguments.augment,
        native_resolution=arguments.native_resolution,
        max_num_patches=arguments.max_num_patches,
        bf16=arguments.bf16,
        fsdp=arguments.fsdp,
        checkpointing=arguments.gradient_checkpointing,
        workers=arguments.workers,
    )


def finish(arguments, recipe, outcome, data, settings, room: Path) -> int:
    from hubtools.finetuning.saving import percent, write_finetuned_folder
    from hubtools.staging import staged
    from hubtools.verification import failures, verify_folder

    command = shlex.join(["python", "scripts/finetune.py", *sys.argv[1:]])
    with staged(arguments.output, arguments.overwrite, [arguments.folder]) as folder:
        write_finetuned_folder(folder, arguments.folder, recipe, outcome, data, settings, command)
        failed = failures(verify_folder(folder)) if arguments.verify else []
        if failed:
            for check in failed:
                print(check.row(verbose=True), file=sys.stderr)
            print(
                f"error: {arguments.output} was not made: what was trained does not pass verify; checkpoints are in {room}",
                file=sys.stderr,
            )
            raise SystemExit(1)  # leaving the block by an exception keeps the output untouched
    if not arguments.keep_checkpoints:
        shutil.rmtree(room)
    for name, share in outcome.figures.items():
        print(f"{name} accuracy: {percent(share)} %")
    print(
        f"{arguments.output}: {outcome.steps} steps, {len(data.labels)} classes{', verified' if arguments.verify else ''}"
    )
    return 0


if __name__ == "__main__":
    run_script(main)
