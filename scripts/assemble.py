#!/usr/bin/env python3
"""Builds a Hub folder from a checkpoint.

    python scripts/assemble.py llava-vit-small --checkpoint llava-vit-small.pth --output ./my-model
    python scripts/assemble.py my-recipe.toml --checkpoint weights/ --dtype bfloat16
    python scripts/assemble.py --checkpoint a-copy-of-a-published-repository/ --output ./my-model
    python scripts/assemble.py byteformer-imagenet-tiff --checkpoint ./my-model --to corenet --output imagenet_tiff.pt
"""

import sys
import time
from pathlib import Path

from hubtools.errors import ArgumentParser, UserError, run_script


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="assemble.py", description=__doc__)
    parser.add_argument("recipe", nargs="?", help="a recipe's name (see --list) or the path of a .toml file; not needed where --checkpoint is a folder with a config.json")
    parser.add_argument("--list", action="store_true", help="list the recipes and leave")
    parser.add_argument("--checkpoint", type=Path, help="a .pth, .pt, .bin or .safetensors file, an index of shards, or a folder that holds one")
    parser.add_argument("--corenet-config", type=Path, metavar="FILE.yaml", help="a CoreNet experiment file in place of a recipe (ByteFormer)")
    parser.add_argument("--random-init", action="store_true", help="fresh weights instead of a checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="seed of --random-init (default 0)")
    parser.add_argument("--output", type=Path, help="the folder to make (default hub_repos/NAME)")
    parser.add_argument("--dtype", help="convert the weights: float32, bfloat16, float16 or float64 (default: as in the checkpoint)")
    parser.add_argument("--max-shard-size", default="5GB", help="largest weights file, such as 500MB (default 5GB)")
    parser.add_argument("--to", choices=["corenet"], help="write a CoreNet state dict to the file --output instead of a Hub folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing Hub folder")
    return parser


def main(argv=None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.list:
        return print_recipes()
    check_arguments(arguments)
    # Imported late: torch and transformers take seconds that a mistyped command should not cost.
    from hubtools.assembly import parse_dtype
    from hubtools.weights import parse_size

    recipe = choose_recipe(arguments)
    arguments.dtype, arguments.max_shard_size = parse_dtype(arguments.dtype), parse_size(arguments.max_shard_size)
    return convert(arguments, recipe) if arguments.to else assemble(arguments, recipe)


def print_recipes() -> int:
    from hubtools.recipes import list_recipes, load_recipe

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
        raise UserError(f"--to {arguments.to} needs --output FILE.pt")


def choose_recipe(arguments):
    from hubtools.published import has_config, recipe_from_folder
    from hubtools.recipes import load_recipe, recipe_from

    if arguments.corenet_config:
        from hubtools.corenet_config import read_corenet_config

        return recipe_from(arguments.corenet_config.stem, read_corenet_config(arguments.corenet_config))
    if arguments.recipe:
        return load_recipe(arguments.recipe)
    if arguments.checkpoint and has_config(arguments.checkpoint):
        return recipe_from_folder(arguments.checkpoint)
    raise UserError("name a recipe (see --list), or give a folder with a config.json as --checkpoint")


def weights_of(arguments, recipe, config, checkpoint):
    from hubtools.assembly import checkpoint_sources, random_sources

    if checkpoint is None:
        return f"random weights, seed {arguments.seed}", random_sources(recipe, config, arguments.seed, arguments.dtype)
    layout, sources = checkpoint_sources(checkpoint, recipe, config, arguments.dtype)
    return f"{checkpoint.path}, {layout} layout", sources


def assemble(arguments, recipe) -> int:
    from hubtools.assembly import write_hub_folder
    from hubtools.packages import ROOT
    from hubtools.progress import byte_bar
    from hubtools.staging import check_output, staged
    from hubtools.verification import verify_folder

    output = arguments.output or ROOT / "hub_repos" / recipe.name
    check_output(output, arguments.overwrite, [path for path in (arguments.checkpoint,) if path])
    config = recipe.build_config()
    started = time.perf_counter()
    with staged(output) as folder:
        with opened(arguments.checkpoint) as checkpoint:
            origin, sources = weights_of(arguments, recipe, config, checkpoint)
            total = sum(source.bytes for source in sources.values())
            with byte_bar(total, "writing") as progress:
                write_hub_folder(folder, recipe, config, sources, arguments.max_shard_size, progress)
            del sources
        built = time.perf_counter()
        checks = verify_folder(folder, checkpoint=arguments.checkpoint)
        print_verdict(checks)
        if any(check.status == "FAIL" for check in checks):
            print(f"error: {output} was not made: the folder built does not pass verify", file=sys.stderr)
            # Leaving the block by an exception keeps the output untouched.
            raise SystemExit(1)
    print(f"{output}: {total / 1e6:,.1f} MB from {origin}; written in {built - started:.1f} s, verified in {time.perf_counter() - built:.1f} s")
    return 0


def convert(arguments, recipe) -> int:
    from hubtools.assembly import write_foreign_checkpoint
    from hubtools.layouts import LAYOUTS
    from hubtools.staging import check_output, staged

    if arguments.to not in [layout.name for layout in LAYOUTS[recipe.package.name]]:
        raise UserError(f"--to {arguments.to} is for byteformer; {recipe.name} is a {recipe.package.name} model")
    if arguments.output.exists() and not arguments.overwrite:
        check_output(arguments.output, False)
    with staged(arguments.output) as file, opened(arguments.checkpoint) as checkpoint:
        origin, sources = weights_of(arguments, recipe, recipe.build_config(), checkpoint)
        write_foreign_checkpoint(file, recipe, sources, arguments.to)
    print(f"{arguments.output}: {arguments.to} state dict from {origin}")
    return 0


def opened(path):
    """The checkpoint at `path`, or a context of None."""
    import contextlib

    from hubtools.checkpoint import open_checkpoint

    return contextlib.nullcontext() if path is None else open_checkpoint(path)


if __name__ == "__main__":
    run_script(main)
