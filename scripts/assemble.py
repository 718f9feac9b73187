#!/usr/bin/env python3
"""Builds a Hub folder from a checkpoint.

python scripts/assemble.py llava-vit-small --checkpoint llava-vit-small.pth --output ./my-model
python scripts/assemble.py my-recipe.toml --checkpoint weights/ --dtype bfloat16
python scripts/assemble.py --checkpoint a-copy-of-a-published-repository/ --output ./my-model
python scripts/assemble.py byteformer-imagenet-tiff --checkpoint ./my-model --to corenet --output imagenet_tiff.pt
python scripts/assemble.py --checkpoint LLaVA-OneVision-2-8B/ --output ./tower
python scripts/assemble.py --checkpoint ./tower --to llava-onevision-2 --output visual.safetensors
"""

from hubtools import isolation  # noqa: F401 (first: see there)

# isort: split
import dataclasses
import sys
import time
from pathlib import Path

from hubtools.assembly.origin import add_checkpoint_arguments, origin_from
from hubtools.errors import ArgumentParser, UserError, run_script

# What --to knows -> a file's name for it.
FOREIGN = {"corenet": "FILE.pt", "llava-onevision-2": "FILE.safetensors"}
STATE_DICT_ENDINGS = (".safetensors", ".pt", ".pth", ".bin")


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="assemble.py", description=__doc__)
    parser.add_argument(
        "recipe",
        nargs="?",
        help="a recipe's name (see --list) or the path of a .toml file; not needed where --checkpoint is a folder with a config.json",
    )
    parser.add_argument("--list", action="store_true", help="list the recipes and leave")
    add_checkpoint_arguments(
        parser, "a .pth, .pt, .ckpt, .bin or .safetensors file, an index of shards, or a folder that holds one"
    )
    parser.add_argument(
        "--corenet-config",
        type=Path,
        metavar="FILE.yaml",
        help="a CoreNet experiment file in place of a recipe (ByteFormer)",
    )
    parser.add_argument("--random-init", action="store_true", help="fresh weights instead of a checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="seed of --random-init (default 0)")
    parser.add_argument("--output", type=Path, help="the folder to make (default hub_repos/NAME)")
    parser.add_argument(
        "--dtype", help="convert the weights: float32, bfloat16, float16 or float64 (default: as in the checkpoint)"
    )
    parser.add_argument("--max-shard-size", default="5GB", help="largest weights file, such as 500MB (default 5GB)")
    parser.add_argument(
        "--to", choices=FOREIGN, help="write a state dict as that code has it to the file --output, not a Hub folder"
    )
    parser.add_argument("--allow-large", action="store_true", help="accept a model of more than 100 billion parameters")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing Hub folder, never anything else")
    return parser


def main(argv=None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.list:
        return print_recipes()
    check_arguments(arguments)
    # Imported late: torch and transformers take seconds that a mistyped command should not cost.
    from hubtools.assembly.build import parse_dtype
    from hubtools.assembly.weights import parse_size

    recipe = dataclasses.replace(choose_recipe(arguments), allow_large=arguments.allow_large)
    arguments.dtype, arguments.max_shard_size = parse_dtype(arguments.dtype), parse_size(arguments.max_shard_size)
    return convert(arguments, recipe) if arguments.to else assemble(arguments, recipe)


def print_recipes() -> int:
    from hubtools.assembly.recipes import list_recipes, load_recipe

    for name in list_recipes():
        recipe = load_recipe(name)
        print(f"{name:45} {recipe.architecture:38} {recipe.checkpoint or ''}")
    return 0


def check_arguments(arguments) -> None:
    if (arguments.checkpoint is None) == (not arguments.random_init):
        raise UserError("give either --checkpoint FILE|FOLDER or --random-init")
    if arguments.recipe and arguments.corenet_config:
        raise UserError(f"give either a recipe ({arguments.recipe}) or --corenet-config, not both")
    if arguments.to and not arguments.output:
        raise UserError(f"--to {arguments.to} needs --output {FOREIGN[arguments.to]}")
    if arguments.to and arguments.output.suffix not in STATE_DICT_ENDINGS and not arguments.output.is_dir():
        endings = ", ".join(STATE_DICT_ENDINGS)
        raise UserError(f"--to {arguments.to} writes a file that ends in {endings}, not {arguments.output.name}")


def choose_recipe(arguments):
    from hubtools.assembly.published import has_config, recipe_from_folder, reconciled
    from hubtools.assembly.recipes import load_recipe, recipe_from

    if arguments.corenet_config:
        from hubtools.assembly.corenet_config import read_corenet_config

        return recipe_from(arguments.corenet_config.stem, read_corenet_config(arguments.corenet_config))
    # A folder that says itself how it computes is not overruled in silence.
    folder = arguments.checkpoint if arguments.checkpoint and has_config(arguments.checkpoint) else None
    if arguments.recipe:
        recipe = load_recipe(arguments.recipe)
        return reconciled(recipe, folder) if folder else recipe
    if folder:
        recipe = recipe_from_folder(folder)
        if not recipe.processor:
            print(
                f"note: {folder} brings no preprocessor_config.json; inputs will be prepared as {recipe.package.name} models are trained",
                file=sys.stderr,
            )
        return recipe
    raise UserError("name a recipe (see --list), or give a folder with a config.json as --checkpoint")


def assemble(arguments, recipe) -> int:
    from hubtools.assembly.build import build_folder
    from hubtools.packages import ROOT
    from hubtools.progress import byte_bar_named
    from hubtools.staging import staged
    from hubtools.verification import failures, verify_folder

    output = arguments.output or ROOT / "hub_repos" / recipe.name
    origin = origin_from(arguments, arguments.seed)
    started = time.perf_counter()
    with staged(output, arguments.overwrite, inputs_of(arguments)) as folder:
        built = build_folder(
            folder, recipe, origin, arguments.dtype, arguments.max_shard_size, byte_bar_named("writing")
        )
        written = time.perf_counter()
        checks = verify_folder(folder, origin, progress=lambda check: print(check.row()))
        if failures(checks):
            # Leaving by an exception is what keeps the output untouched.
            raise VerificationFailed(
                f"the folder does not pass verify ({len(failures(checks))} FAIL); {output} was not made"
            )
    print(
        f"{output}: {built.bytes / 1e6:,.1f} MB from {built.origin}; "
        f"written in {written - started:.1f} s, verified in {time.perf_counter() - written:.1f} s"
    )
    return 0


def convert(arguments, recipe) -> int:
    from hubtools.assembly.build import write_foreign_checkpoint
    from hubtools.staging import staged

    if arguments.output.is_dir():
        raise UserError(f"--to {arguments.to} writes a file; {arguments.output} is a folder")
    with staged(arguments.output, arguments.overwrite, inputs_of(arguments)) as file:
        origin = write_foreign_checkpoint(
            file, recipe, origin_from(arguments, arguments.seed), arguments.to, arguments.dtype
        )
    print(f"{arguments.output}: {arguments.to} state dict from {origin}")
    return 0


def inputs_of(arguments) -> list:
    """The files that the user named, none of which an output may replace."""
    recipe = Path(arguments.recipe) if arguments.recipe and arguments.recipe.endswith(".toml") else None
    named = [arguments.checkpoint, arguments.corenet_config, recipe]
    return [path for path in named if path is not None]


class VerificationFailed(UserError):
    """The folder that was built is not good. Exit code 1, as verify.py's own."""

    exit_code = 1


if __name__ == "__main__":
    run_script(main)
