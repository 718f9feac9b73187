"""Files of made clips, in every codec that the tests know, and of what is no clip."""

from pathlib import Path
from typing import List

import av
import numpy as np
from hubtools.clips import moving_object, write_video

__all__ = ["ENCODERS", "moving_object", "write_all", "write_sound", "write_video"]

ENCODERS = {  # name of the file -> encoder, pixel format, options
    "h264.mp4": ("libx264", "yuv420p", {"crf": "20"}),
    "hevc.mp4": ("libx265", "yuv420p", {"crf": "20", "x265-params": "log-level=0"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"crf": "20", "b": "0"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"qscale": "2", "b": "4000000"}),
    "gif.gif": ("gif", "rgb8", {}),
}


def write_sound(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_all(folder: Path, frames) -> List[Path]:
    """The same frames in every container and codec of ENCODERS."""
    return [write_video(folder / name, frames, *settings) for name, settings in ENCODERS.items()]
