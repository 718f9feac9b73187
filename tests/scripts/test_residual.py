"""What changed between frames, wherever the project computes it: the channels' differences never cancel each other
out."""

import re

import torch
from hubtools.assembly.cards import TEMPLATES
from hubtools.demos import use_folder, use_trained
from hubtools.finetuning import moving_digits
from hubtools.packages import ROOT
from measure import assert_outputs_close

DOCUMENTS = [
    ROOT / "llavavit" / "README.md",
    *sorted(path for path in TEMPLATES.iterdir() if "\nresidual" in path.read_text()),
]


def from_document(path):
    """The lines of a document that make `residual` out of `clip`, as a function."""
    lines = re.findall(r"^residual\b.*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(lines) == 2, f"{path} does not say how a residual is made"

    def make(clip):
        names = {"torch": torch, "clip": clip}
        exec("\n".join(lines), names)
        return names["residual"]

    return make


def test_a_red_square_that_turns_green_has_changed():
    clip = torch.zeros(1, 3, 2, 8, 8)
    clip[:, 0, 0, 2:4, 2:4] = clip[:, 1, 1, 2:4, 2:4] = 1.5
    expected = torch.zeros(1, 1, 2, 8, 8)
    expected[:, :, 1, 2:4, 2:4] = 3.0
    ways = {path.name: from_document(path) for path in DOCUMENTS}
    ways.update(demo=use_folder.residual_of, trained=use_trained.residual_of, training=moving_digits.residual_of)
    for name, make in ways.items():
        assert_outputs_close(make(clip), expected, name)
