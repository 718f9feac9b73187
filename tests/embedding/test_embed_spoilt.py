"""What cannot be read costs itself alone: it is listed with its reason, in bounded memory and time."""

import os
import signal
import struct
import time
import zlib

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedding_kit import DIGITS, MOTION, embedded, failed_of, rows_of, save_clips, save_pictures
from hubtools.embedding.decoding import decode
from hubtools.embedding.plan import Planned
from hubtools.embedding.reading import Failure, time_limit
from hubtools.embedding.sources import Source
from hubtools.embedding.windows import windows_of
from PIL import Image
from video_clips import moving_object, write_video


def png_that_claims(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def spoil(folder):
    """Spoilt files and a word of the reason that a person should read."""
    picture, clip = save_pictures(folder / "whole", 1)[0].read_bytes(), save_clips(folder / "whole", 1)[0].read_bytes()
    spoilt = folder / "spoilt"
    spoilt.mkdir()
    contents = {
        "empty.png": (b"", "empty"),
        "empty.mp4": (b"", "empty"),
        "truncated.png": (picture[: len(picture) // 2], "decoded"),
        "text.jpg": (b"no picture", "no picture"),
        "text.mp4": (b"no video" * 100, "FFmpeg"),
        "bomb.png": (png_that_claims(60_000, 60_000), "pixels"),
        "huge.png": (png_that_claims(2**31 - 1, 2**31 - 1), ""),
        "truncated.mp4": (clip[: len(clip) // 2], ""),
    }
    for name, (data, _) in contents.items():
        (spoilt / name).write_bytes(data)
    os.mkfifo(spoilt / "pipe.png")
    os.mkfifo(spoilt / "pipe.mp4")
    (spoilt / "nowhere.png").symlink_to(folder / "gone.png")
    (spoilt / "circle.png").symlink_to("circle.png")
    Image.new("I;16", (30, 30)).save(spoilt / "wide.png")
    reasons = {name: word for name, (_, word) in contents.items()}
    reasons.update({"pipe.png": "a pipe", "pipe.mp4": "a pipe", "nowhere.png": "no such file", "wide.png": "8 bits"})
    return {**reasons, "circle.png": "symbolic links"}


@pytest.mark.parametrize("workers", [0, 1])
def test_spoilt_files_among_good_ones(tmp_path, workers):
    reasons = spoil(tmp_path)
    if os.geteuid():
        (tmp_path / "spoilt" / "secret.png").write_bytes(b"x")
        (tmp_path / "spoilt" / "secret.png").chmod(0)
        reasons["secret.png"] = "Permission"
    save_pictures(tmp_path / "photos", 10)
    result = embedded(MOTION, tmp_path / "photos", tmp_path / "spoilt", "--output", tmp_path / "out", workers=workers)
    assert result.code == 3 and f"10 embedded in 1 shard, {len(reasons)} failed" in result.out, result
    failed = {os.path.basename(path): reason for path, reason in failed_of(tmp_path / "out").items()}
    assert failed.keys() == reasons.keys()
    for name, word in reasons.items():
        assert word in failed[name] and failed[name] and "\n" not in failed[name], (name, failed[name])
    assert len(rows_of(tmp_path / "out")) == 10


def test_damaged_parquet_files_are_failed(tmp_path):
    good = save_pictures(tmp_path / "photos", 3)
    names = pa.array([b"a.png", b"\xff.png", b"c.png"]).cast(pa.binary())
    structs = pa.StructArray.from_arrays(
        [pa.array([path.read_bytes() for path in good]), names.view(pa.string())], ["bytes", "path"]
    )
    pq.write_table(pa.table({"image": structs}), tmp_path / "names.parquet")
    pq.write_table(pa.table({"path": [f"{path}" for path in good] * 1000}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "noise.parquet").write_bytes(whole[:4] + bytes(60) + whole[64:])
    (tmp_path / "cut.parquet").write_bytes(whole[:-100])
    damaged = [tmp_path / f"{name}.parquet" for name in ("names", "noise", "cut")]
    result = embedded(MOTION, *damaged, *good, "--output", tmp_path / "out")
    assert result.code == 3, result
    failed = failed_of(tmp_path / "out")
    assert sorted(failed) == sorted(map(str, damaged)), failed
    assert all("is no Parquet file that can be read: " in reason for reason in failed.values())
    assert {row["path"] for row in rows_of(tmp_path / "out")} == set(map(str, good))


def test_a_damaged_video_is_failed_or_kept(tmp_path):
    clip = write_video(
        tmp_path / "cut.mkv", moving_object(0, frames=40, size=64).frames, options={"g": "10", "bf": "0"}
    )
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 3 // 5])
    result = embedded(MOTION, clip, "--output", tmp_path / "out")
    assert result.code == 3 and "--keep-damaged" in failed_of(tmp_path / "out")[str(clip)]
    assert embedded(MOTION, clip, "--output", tmp_path / "kept", "--keep-damaged").code == 0
    assert len(rows_of(tmp_path / "kept")) == 1


def test_files_that_a_model_of_bytes_cannot_take(tmp_path):
    (tmp_path / "long.bin").write_bytes(bytes(10_000))
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "good.bin").write_bytes(bytes(100))
    assert embedded(DIGITS, tmp_path, "--output", tmp_path / "out", "--read-files-as", "bytes").code == 3
    failed = {os.path.basename(path): reason for path, reason in failed_of(tmp_path / "out").items()}
    assert "at most" in failed["long.bin"] and "empty" in failed["empty.bin"] and len(failed) == 2


class Deadly:
    """Reads numbers; some end their process."""

    seconds = 1.0

    def __call__(self, source):
        if source.path in (b"3", b"40", b"41"):
            os.kill(os.getpid(), signal.SIGKILL)
        return int(source.path)


def test_an_input_that_ends_its_process_costs_itself_alone(monkeypatch):
    monkeypatch.setattr("hubtools.embedding.windows.WINDOW", 16)  # each input under way gets a process of its own
    planned = [Planned(number, Source(str(number).encode()), 0) for number in range(120)]
    found = list(decode(windows_of(0, planned), Deadly(), workers=2))
    assert [window for window, _ in found] == list(windows_of(0, planned))
    values = [value for _, values in found for value in values]
    assert [number for number, value in enumerate(values) if isinstance(value, Failure)] == [3, 40, 41]
    assert [value for value in values if not isinstance(value, Failure)] == [
        n for n in range(120) if n not in (3, 40, 41)
    ]


class Harmless(Deadly):
    def __call__(self, source):
        return int(source.path)


def test_a_process_that_ends_while_the_model_computes_is_no_error_of_the_model():
    planned = [Planned(number, Source(str(number).encode()), 0) for number in range(135)]
    before, handler = set(psutil.Process().children()), signal.getsignal(signal.SIGCHLD)
    windows = decode(windows_of(0, planned), Harmless(), workers=1)
    _, values = next(windows)
    workers = set(psutil.Process().children()) - before
    assert workers
    for worker in workers:
        worker.kill()
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        time.sleep(0.01)
    signal.raise_signal(signal.SIGCHLD)
    for _, more in windows:
        values = values + more
    assert values == list(range(135))
    assert signal.getsignal(signal.SIGCHLD) == handler or handler == signal.SIG_DFL


def test_an_input_that_takes_too_long_is_given_up(tmp_path):
    clip = save_clips(tmp_path / "clips", 1)[0]
    result = embedded(MOTION, clip, "--output", tmp_path / "out", "--timeout", "0.001")
    assert result.code == 3 and "0.001 s" in failed_of(tmp_path / "out")[str(clip)]
    with time_limit(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
