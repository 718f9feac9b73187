# SPDX-License-Identifier: Apache-2.0
"""What two files share that have to stand alone stands in both, letter for letter."""

import pytest
from hubtools.packages import ROOT

# What each pair of files shares, among other things.
PAIRS = {
    ("llavavit/modeling_llava_vit.py", "byteformer/modeling_byteformer.py"): (
        "require",
        "has_values",
        "attend",
        "classification_loss",
        "check_labels",
    ),
    ("byteformer/image_processing_byteformer.py", "byteformer/feature_extraction_byteformer.py"): (
        "shown",
        "as_byte_array",
        "read_file",
        "pad_batch",
        "warn_of_padding",
        "tensor_to_array",
    ),
}
MARKS = ("# --- Shared: ", "# --- End of what the two files share ---")


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def shared(file: str) -> str:
    text = read(file)
    assert [text.count(mark) for mark in MARKS] == [1, 1], f"{file} has not one block between {MARKS}"
    return text[text.index(MARKS[0]) : text.index(MARKS[1])]


@pytest.mark.parametrize("pair", PAIRS, ids=["models", "byte processors"])
def test_both_files_hold_the_same_shared_code(pair):
    ours, theirs = map(shared, pair)
    assert ours == theirs
    for name in PAIRS[pair]:
        assert f"def {name}(" in ours and all(read(file).count(f"def {name}(") == 1 for file in pair), name
