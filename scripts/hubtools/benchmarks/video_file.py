"""Case video-file: what it costs to get from a video file to the model's input, beside decoding the file alone with PyAV.

The clip is made anew: an object before a panning texture, H.264 by x264's defaults. Each part is measured in a process of
its own: the times of the ways taking turns, the peak memory at two lengths, clips per second by number of loader workers.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Sequence, Tuple

import av
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..clips import Scene, disc, texture, write_repeated, write_video
from ..errors import UserError, run_script
from ..isolation import SCRIPTS, isolated_command
from ..packages import package_named
from .measure import can_measure_peak, peak_rise

MIB = 2**20
ALONE, ALL_THREADS, VECTORS, PROCESSING = "decoding", "decoding, all threads", "decoding, vectors read", "processing"
# x264's output depends on the number of its threads.
ENCODING = {"crf": "23", "preset": "medium", "x264-params": "threads=2"}


@dataclass(frozen=True)
class Sizes:
    """Of what is measured. `longer` is how many times the clip stands in the long one."""

    frames: int = 300
    height: int = 720
    width: int = 1280
    longer: int = 10
    clips: int = 8
    workers: Tuple[int, ...] = (0, 1, 2, 4)


def make_clip(path: Path, sizes: Sizes) -> Path:
    """The same pictures every time: the camera pans 3 pixels a frame, a disc crosses the picture."""
    generator = np.random.default_rng(0)
    reach, extent = 3 * sizes.frames, sizes.height // 4
    scene = Scene(
        texture(generator, sizes.height, sizes.width + reach, 3),
        texture(generator, extent, extent, 2),
        disc(extent),
        np.array([sizes.height / 3, 0.0]),
        np.array([1.0, 5.0]),
        np.array([0.0, 3.0]),
    )
    shots = scene.shots(sizes.frames, sizes.height, sizes.width)
    return write_video(path, (frame for frame, _, _ in shots), options=ENCODING, rate=30)


def measure(repeats: int, threads: int, sizes: Sizes = Sizes()) -> Dict[str, object]:
    """Seconds of each way, clock and processor, medians and ratios to decoding alone; bytes; clips per second."""
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", sizes)
        longer = write_repeated(clip, sizes.longer, Path(folder) / "longer.mp4")
        tiny = make_clip(Path(folder) / "tiny.mp4", Sizes(frames=4, height=64, width=96))
        times = in_a_process("times", clip, repeats, threads)
        peaks = None
        if can_measure_peak():
            peaks = {
                str(frames): in_a_process("peak", path, tiny, threads)
                for frames, path in ((sizes.frames, clip), (sizes.frames * sizes.longer, longer))
            }
        rates = {str(count): in_a_process("rate", clip, sizes.clips, count, threads) for count in sizes.workers}
    medians = {way: {clock: statistics.median(taken[clock]) for clock in taken} for way, taken in times.items()}
    ratios = {
        way: {clock: value / medians[ALONE][clock] for clock, value in row.items()} for way, row in medians.items()
    }
    return {
        "frames": sizes.frames, "median_seconds": medians, "times_decoding_alone": ratios, "peak_bytes": peaks,
        "clips_per_second": rates,
    }  # fmt: skip


def in_a_process(part: str, *arguments: object) -> Any:
    command = isolated_command(__name__, part, *map(str, arguments))
    done = subprocess.run(command, cwd=SCRIPTS, text=True, capture_output=True)
    if done.returncode:
        raise UserError(f"video-file, {part}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- in a process of their own ----------------------------------------------------------------------------------------


def decode(path: str, thread_type: str = "", vectors: bool = False) -> None:
    with av.open(path) as file:
        stream = file.streams.video[0]
        if thread_type:
            stream.thread_type = thread_type
        if vectors:
            stream.codec_context.options = {"flags2": "+export_mvs"}
        for frame in file.decode(stream):
            found = frame.side_data.get("MOTION_VECTORS") if vectors else None
            if found is not None:
                found.to_ndarray()


def processor():
    return package_named("llavavit").load().LlavaViTVideoProcessor()


def times(path: str, repeats: str) -> Dict[str, Dict[str, list]]:
    """Clock and processor seconds of each way, which take turns; the first round is not counted."""
    read = processor()
    ways: Dict[str, Callable[[], object]] = {
        ALONE: lambda: decode(path),
        ALL_THREADS: lambda: decode(path, "AUTO"),
        VECTORS: lambda: decode(path, vectors=True),
        **{
            f"{PROCESSING}, {selection}": lambda selection=selection: read(videos=path, selection=selection)
            for selection in ("none", "difference", "codec")
        },
    }
    taken: Dict[str, Dict[str, list]] = {way: {"clock": [], "processor": []} for way in ways}
    for _ in range(int(repeats) + 1):
        for way, run in ways.items():
            clock, busy = time.perf_counter(), time.process_time()
            run()
            taken[way]["clock"].append(time.perf_counter() - clock)
            taken[way]["processor"].append(time.process_time() - busy)
    return {way: {name: values[1:] for name, values in row.items()} for way, row in taken.items()}


def peak(path: str, tiny: str) -> int:
    """Bytes over the process at rest, once a tiny clip has loaded what is loaded once."""
    read = processor()
    read(videos=tiny)
    return peak_rise(lambda: read(videos=path))


class Clips(Dataset):
    """The same file again and again."""

    def __init__(self, path: str, count: int):
        self.path, self.count, self.read = path, count, processor()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        return dict(self.read(videos=self.path, return_tensors="pt"))


def rate(path: str, clips: str, workers: str) -> float:
    """Clips per second from a loader with so many workers, their start included."""
    data = Clips(path, int(clips))
    start = time.perf_counter()
    for _ in DataLoader(data, batch_size=None, num_workers=int(workers)):
        pass
    return len(data) / (time.perf_counter() - start)


def answer(argv: Sequence[str]) -> int:
    part, *arguments, threads = argv
    torch.set_num_threads(int(threads))
    print(json.dumps({"times": times, "peak": peak, "rate": rate}[part](*arguments)))
    return 0


def main() -> None:
    run_script(answer, sys.argv[1:])


# --- told -------------------------------------------------------------------------------------------------------------


def describe(result: Dict[str, Any]) -> str:
    medians, ratios = result["median_seconds"], result["times_decoding_alone"]
    rows = [
        f"  {way:<24} {row['clock']:.2f} s, {ratios[way]['clock']:.2f} x decoding alone; "
        f"processor time {row['processor']:.2f} s, {ratios[way]['processor']:.2f} x"
        for way, row in medians.items()
    ]
    peaks = result["peak_bytes"] or {}
    memory = ", ".join(f"{frames} frames {size / MIB:.0f} MiB" for frames, size in peaks.items()) or "unknown"
    rates = ", ".join(f"{count}: {value:.2f}" for count, value in result["clips_per_second"].items())
    head = f"video-file: {result['frames']} frames, medians"
    return "\n".join([head, *rows, f"  peak memory over rest: {memory}", f"  clips per second by workers: {rates}"])
