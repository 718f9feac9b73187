"""What the sizes of a checkpoint say where it does not fit its recipe: hundreds of missing tensors come from one
wrong number."""

from typing import Any, Dict

from ..facts import Shapes
from .layouts import hub_shapes, recognise
from .recipes import Recipe, list_recipes, load_recipe


def misfit(recipe: Recipe, expected: Shapes, stored: Shapes) -> str:
    """How the sizes differ, as the end of a sentence, and which recipe has the checkpoint's; "" where they do not
    differ.

    Args:
        recipe: what was asked for.
        expected: shapes of its model, by Hub name.
        stored: shapes of the checkpoint, in whatever layout it has.

    Raises:
        UserError: no layout of the model fits the checkpoint.
    """
    package = recipe.package
    shapes = hub_shapes(recognise(package.name, stored), package, stored)
    try:
        found, wanted = numbers(package.sizes_of(shapes)), numbers(package.sizes_of(expected))
    except KeyError:  # a tensor that every model has is not there; it is named as missing
        return ""
    differing = [key for key in found if key in wanted and found[key] != wanted[key]]
    if not differing:
        return ""
    sizes = ", ".join(f"{key} is {found[key]}, expected {wanted[key]}" for key in differing)
    fitting = [name for name in list_recipes() if fits(load_recipe(name), recipe, found)]
    return f"; {sizes}" + (f"; this looks like {' or '.join(fitting)}" if fitting else "")


def numbers(sizes: Dict[str, Any]) -> Dict[str, int]:
    """The sizes that are numbers: a single tensor that is missing would change the others."""
    return {key: value for key, value in sizes.items() if type(value) is int}


def fits(candidate: Recipe, recipe: Recipe, sizes: Dict[str, int]) -> bool:
    """Whether a recipe for the same package, other than `recipe`, has these sizes."""
    if candidate.package is not recipe.package or candidate.name == recipe.name:
        return False
    config = candidate.build_config()
    return all(getattr(config, key) == value for key, value in sizes.items())
