"""A run may end at any moment and be given again: nothing is lost, nothing is done twice, no byte is another."""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from embedding_kit import DIGITS, MOTION, SCRIPT, embedded, failed_of, hashes, rows_of, save_clips, save_pictures, times
from measure import assert_outputs_close
from small import files_up_to

SMALL = ("--shard-size", 20)


@pytest.fixture
def photos(tmp_path):
    save_pictures(tmp_path / "photos", 90)
    return tmp_path / "photos"


def command(*arguments):
    return [sys.executable, SCRIPT, *map(str, arguments), "--workers", "1", "--threads", "1"]


def processes_of(output):
    """The processes that have the output among their arguments."""
    return [process for process in psutil.process_iter(["cmdline"]) if str(output) in (process.info["cmdline"] or ())]


def test_killed_at_random_moments_and_given_again(tmp_path, photos):
    save_clips(tmp_path / "clips", 6)
    arguments = (MOTION, photos, tmp_path / "clips", "--output")
    assert embedded(*arguments, tmp_path / "undisturbed", *SMALL).code == 0
    output, moments, killed = tmp_path / "disturbed", random.Random(0), 0
    for _ in range(2):
        run = subprocess.Popen(command(*arguments, output, *SMALL), stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        shards = len(list(output.glob("data/[0-9]*.parquet")))
        while (
            run.poll() is None and time.monotonic() < until and len(list(output.glob("data/[0-9]*.parquet"))) <= shards
        ):
            time.sleep(0.01)
        time.sleep(moments.random() / 20)
        run.send_signal(signal.SIGKILL)
        killed += run.wait() == -signal.SIGKILL
    assert killed, "no run was interrupted: the test tests nothing"
    until = time.monotonic() + 60
    while (left := processes_of(output)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left, "workers of a killed run stay behind"
    assert embedded(*arguments, output, *SMALL).code == 0
    assert hashes(output) == hashes(tmp_path / "undisturbed")


def test_a_shard_that_was_lost_or_cut_is_made_again(tmp_path, photos):
    output = tmp_path / "out"
    assert embedded(MOTION, photos, "--output", output, *SMALL).code == 0
    before = hashes(output)
    (output / "data" / "000001.parquet").unlink()
    cut = output / "data" / "000003.parquet"
    cut.write_bytes(cut.read_bytes()[:-20])
    (output / "failed.parquet").unlink()
    (output / "data" / ".000002.parquet.partial").write_bytes(b"of a run that was killed")
    result = embedded(MOTION, photos, "--output", output, *SMALL)
    assert result.code == 0 and "40 done in this run" in result.out, result
    assert hashes(output) == before


def test_nothing_is_done_when_nothing_is_left(tmp_path, photos):
    output = tmp_path / "out"
    assert embedded(MOTION, photos, "--output", output).code == 0
    before = times(output)
    result = embedded(MOTION, photos, photos / "more", "--output", output)
    assert result.code == 0 and "0 new, 0 changed, 90 known, 30 named twice; 0 done in this run" in result.out, result
    assert times(output) == before


def test_new_files_get_shards_of_their_own(tmp_path, photos):
    output = tmp_path / "out"
    assert embedded(MOTION, photos, "--output", output, *SMALL).code == 0
    before = hashes(output)
    save_pictures(tmp_path / "later", 7, seed=1)
    result = embedded(MOTION, photos, tmp_path / "later", "--output", output, *SMALL)
    assert "7 new, 0 changed, 90 known; 7 done in this run" in result.out
    after = hashes(output)
    assert {name: after[name] for name in before if name.startswith(("data", "inputs"))} == {
        name: value for name, value in before.items() if name.startswith(("data", "inputs"))
    }
    assert len({row["path"] for row in rows_of(output)}) == len(rows_of(output)) == 97


def test_changed_files_are_done_again_in_their_place(tmp_path, photos):
    output, fresh = tmp_path / "out", tmp_path / "fresh"
    assert embedded(MOTION, photos, "--output", output, *SMALL).code == 0
    before = {row["path"]: row for row in rows_of(output)}
    changed = [photos / "0001.png", photos / "0002.png", photos / "0070.png"]
    for path, other in zip(changed, ("0004.png", "0005.png", "0007.png")):
        path.write_bytes((photos / other).read_bytes())
    changed[1].write_text("spoilt")
    result = embedded(MOTION, photos, "--output", output, *SMALL)
    assert result.code == 3 and "0 new, 3 changed, 87 known; 3 done in this run" in result.out, result
    assert list(failed_of(output)) == [str(changed[1])]
    rows = rows_of(output)
    assert [row["path"] for row in rows] == [path for path in before if path != str(changed[1])]
    assert embedded(MOTION, photos, "--output", fresh, *SMALL).code == 3
    for row, expected in zip(rows, rows_of(fresh)):
        assert {**row, "vector": 0} == {**expected, "vector": 0}
        assert_outputs_close(torch.tensor(row["vector"]), torch.tensor(expected["vector"]))
        if row["path"] not in map(str, changed):
            assert row == before[row["path"]]
    mended = (photos / "0004.png").read_bytes()
    changed[1].write_bytes(mended)
    assert embedded(MOTION, photos, "--output", output, *SMALL).code == 0
    assert failed_of(output) == {} and [row["path"] for row in rows_of(output)] == list(before)


def test_a_change_while_shards_are_missing_loses_nothing(tmp_path, photos):
    output = tmp_path / "out"
    assert embedded(MOTION, photos, "--output", output, *SMALL).code == 0
    (output / "data" / "000002.parquet").unlink()
    for name in ("0001.png", "0002.png", "0044.png"):
        (photos / name).write_bytes((photos / "0005.png").read_bytes())
    assert embedded(MOTION, photos, "--output", output, *SMALL).code == 0
    rows = {row["path"]: row["vector"] for row in rows_of(output)}
    assert len(rows) == len(rows_of(output)) == 90
    for name in ("0001.png", "0002.png", "0044.png"):
        assert_outputs_close(torch.tensor(rows[str(photos / name)]), torch.tensor(rows[str(photos / "0005.png")]))


def test_failures_stay_listed_until_they_are_tried_again(tmp_path, photos):
    output = tmp_path / "out"
    link = photos / "link.png"
    link.symlink_to(tmp_path / "elsewhere.png")
    gone = photos / "gone.png"
    gone.write_bytes(b"text")
    assert embedded(MOTION, photos, "--output", output).code == 3
    assert set(failed_of(output)) == {str(link), str(gone)}
    gone.unlink()
    again = embedded(MOTION, photos, "--output", output)
    assert again.code == 3 and "0 done in this run" in again.out
    (tmp_path / "elsewhere.png").write_bytes((photos / "0001.png").read_bytes())
    result = embedded(MOTION, photos, "--output", output, "--retry-failed")
    assert result.code == 0 and "91 embedded" in result.out, result
    assert failed_of(output) == {} and len(rows_of(output)) == 91


def test_another_model_other_options_and_other_folders_are_refused_in_one_line(tmp_path, photos):
    output = tmp_path / "out"
    assert embedded(MOTION, photos, "--output", output).code == 0
    before = hashes(output)
    cases = {
        (DIGITS, output): "of another model: architecture",
        (MOTION, output, "--what", "tokens"): "--shard-size 4096, not 256",
        (MOTION, output, "--dtype", "bfloat16"): "--dtype 'float32', not 'bfloat16'",
        (MOTION, output, "--selection", "none"): "--selection None, not 'none'",
        (MOTION, photos): "0000.png" if (photos / "0000.png").exists() else "which embed.py did not make",
        (MOTION, photos / "0001.png"): "is no folder",
        (MOTION, photos / "0001.png" / "out"): "could not write",
        (photos, tmp_path / "other"): "is not a Hub folder",
    }
    for (model, where, *options), words in cases.items():
        result = embedded(model, photos, "--output", where, *options)
        assert result.code == 2 and result.err.count("\n") == 1 and words in result.err, (words, result)
    assert hashes(output) == before
    manifest = output / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"code": "sha256:', '"code": "sha256:other'))
    assert "of another model: code" in embedded(MOTION, photos, "--output", output).err
    absent = embedded(MOTION, tmp_path / "nowhere", "--output", tmp_path / "other")
    assert absent.code == 2 and "no such file or folder" in absent.err and not (tmp_path / "other").exists()


def test_a_full_disk_is_one_line_and_the_run_goes_on_from_there(tmp_path, photos, warm, monkeypatch):
    monkeypatch.setattr(sys, "executable", warm.command)
    output = tmp_path / "out"
    for bytes_left, left in ((6_000, "data"), (200, "inputs")):
        target = output if left == "data" else tmp_path / "fuller"
        done = subprocess.run(
            command(MOTION, photos, "--output", target, "--shard-size", 60),
            capture_output=True,
            text=True,
            preexec_fn=files_up_to(bytes_left),
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "could not write" in done.stderr and "the same command goes on" in done.stderr
        assert not list(target.rglob("*.partial"))
        for file in target.glob("data/*.parquet"):
            pq.read_table(file)
    assert embedded(MOTION, photos, "--output", output, "--shard-size", 60).code == 0
    assert embedded(MOTION, photos, "--output", tmp_path / "roomy", "--shard-size", 60).code == 0
    assert hashes(output) == hashes(tmp_path / "roomy")


def test_a_manifest_that_cannot_get_its_name_does_not_stand_in_the_way(tmp_path, photos, monkeypatch):
    output, rename = tmp_path / "out", os.replace

    def refuse(source, target):
        if os.path.basename(target) == "manifest.json":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    result = embedded(MOTION, photos, "--output", output)
    assert result.code == 2 and "No space left" in result.err
    assert sorted(hashes(output)) == [".lock", "inputs/00000.parquet"]
    monkeypatch.undo()
    (output / ".manifest.json.partial").write_text("of a run that was killed")
    assert embedded(MOTION, photos, "--output", output).code == 0
    assert len(rows_of(output)) == 90 and not (output / ".manifest.json.partial").exists()


def test_two_runs_do_not_write_one_output(tmp_path, photos):
    output = tmp_path / "out"
    assert embedded(MOTION, photos, "--output", output).code == 0
    holder = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", holder, output / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    result = embedded(MOTION, photos, "--output", output)
    other.communicate("\n")
    assert result.code == 2 and "another run" in result.err
    assert embedded(MOTION, photos, "--output", output).code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_output_is_refused(tmp_path, photos):
    (tmp_path / "kept").mkdir(mode=0o555)
    result = embedded(MOTION, photos, "--output", tmp_path / "kept" / "out")
    assert result.code == 2 and "could not write" in result.err and result.err.count("\n") == 1
