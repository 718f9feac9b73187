# SPDX-License-Identifier: Apache-2.0
"""What the two modeling files share stands in both, letter for letter."""

from hubtools.packages import ROOT

FILES = ("llavavit/modeling_llava_vit.py", "byteformer/modeling_byteformer.py")
MARKS = ("# --- Shared: ", "# --- End of what the two files share ---")


def shared(file: str) -> str:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert [text.count(mark) for mark in MARKS] == [1, 1], f"{file} has not one block between {MARKS}"
    return text[text.index(MARKS[0]) : text.index(MARKS[1])]


def test_both_modeling_files_hold_the_same_shared_code():
    ours, theirs = map(shared, FILES)
    assert ours == theirs
    assert all(
        f"def {name}(" in ours for name in ("require", "has_values", "attend", "classification_loss", "check_labels")
    )
