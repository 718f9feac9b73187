"""Made clips and files of them for the tests, and a file that is no clip."""

from pathlib import Path

import av
import numpy as np
from hubtools.clips import ENCODERS, moving_object, write_all, write_video

__all__ = ["ENCODERS", "moving_object", "write_all", "write_sound", "write_video"]


def write_sound(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
