"""One input: where its bytes lie, and what it is by its name."""

import os
from typing import NamedTuple, Optional

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .avif .heic .jp2 .ppm .pgm .pbm .tga .ico".split()
)
VIDEOS = frozenset(".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .m2v .mts .m2ts .3gp .ogv .wmv .flv".split())
SOUNDS = frozenset(".wav .wave .mp3 .flac .ogg .oga .opus .m4a .aac .aif .aiff".split())

VIDEO_WEIGHT = 16  # what a video counts for, where a picture counts for 1


class Source(NamedTuple):
    """Where one input's bytes lie.

    Attributes:
        path: of the file, or of the member inside `container`, as the file system has it: bytes.
        container: a tar file or a Parquet file that holds the input; None for a file by itself.
        key: the sample's name in a tar file, the row's number in a Parquet file; None for a file by itself.
        offset: where in a tar file its bytes begin.
        size: of the input in bytes when it was listed; of a Parquet file's row, of that file; -1 where it was not there.
        mtime: of the file, or of the container: nanoseconds.
        column: of a Parquet file, which holds its bytes.
        problem: why it cannot be read, where that was known when it was listed.
    """

    path: bytes
    container: Optional[bytes] = None
    key: Optional[str] = None
    offset: int = 0
    size: int = -1
    mtime: int = 0
    column: Optional[str] = None
    problem: Optional[str] = None

    @property
    def in_parquet(self) -> bool:
        return self.column is not None

    @property
    def name(self) -> str:
        return text_of(self.path)


def suffix_of(path: bytes) -> str:
    return os.path.splitext(path)[1].decode("ascii", "replace").lower()


def text_of(path: bytes) -> str:
    """A path as text: bytes that are no UTF-8 are spelled out, since neither Parquet nor a person could read them."""
    return path.decode("utf-8", "backslashreplace")


def weight_of(path: bytes) -> int:
    """How much work an input is, roughly, told from its name: what shards and windows are measured by."""
    return VIDEO_WEIGHT if suffix_of(path) in VIDEOS else 1
