"""Every form in which a collection may be given leads to the same vectors."""

import csv
import io
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedding_kit import DIGITS, MOTION, embedded, failed_of, rows_of, save_clips, save_pictures
from hubtools.embedding import run
from PIL import Image


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Pictures and a clip, and their rows as a folder gives them, by the file's name."""
    folder = tmp_path_factory.mktemp("collection")
    paths = save_pictures(folder / "files", 9) + save_clips(folder / "files", 1)
    assert embedded(MOTION, folder / "files", "--output", folder / "out").code == 0
    return paths, {os.path.basename(row["path"]): row for row in rows_of(folder / "out")}


def same(rows, expected, paths):
    assert [os.path.basename(row["path"]) for row in rows] == [path.name for path in paths]
    for row in rows:
        assert row["vector"] == pytest.approx(expected[os.path.basename(row["path"])]["vector"], abs=1e-5)
        assert row["frame_times"] == expected[os.path.basename(row["path"])]["frame_times"]


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_lists_of_paths(collection, tmp_path, monkeypatch):
    paths, expected = collection
    (tmp_path / "list.txt").write_text("".join(f"{path}\r\n\n" for path in paths))
    with open(tmp_path / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("label", "path"), *(("a, b", path) for path in paths)])
    table = pa.table({"number": range(len(paths)), "where": [str(path) for path in paths]})
    pq.write_table(table, tmp_path / "list.parquet")
    for name, options in (("list.txt", ()), ("list.csv", ()), ("list.parquet", ("--column", "where"))):
        assert embedded(MOTION, tmp_path / name, "--output", tmp_path / f"{name}-out", *options).code == 0
        same(rows_of(tmp_path / f"{name}-out"), expected, paths)
    monkeypatch.chdir(paths[0].parent)
    (tmp_path / "relative.txt").write_text(f"./{paths[0].name}\n")
    assert embedded(MOTION, tmp_path / "relative.txt", "--output", tmp_path / "relative").code == 0
    assert [row["path"] for row in rows_of(tmp_path / "relative")] == [paths[0].name]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    for folder, source in (("deep", paths[0]), (".", paths[1])):
        (tmp_path / folder / "a.png").write_bytes(source.read_bytes())
    (tmp_path / "marked.txt").write_text(f"\ufeff{tmp_path}/link/../a.png\n", encoding="utf-8")
    assert embedded(MOTION, tmp_path / "marked.txt", "--output", tmp_path / "marked").code == 0
    (row,) = rows_of(tmp_path / "marked")
    assert row["vector"] == pytest.approx(expected[paths[0].name]["vector"], abs=1e-5)


def test_tar_shards(collection, tmp_path):
    paths, expected = collection
    files = [entry for path in paths for entry in ((path.name, path.read_bytes()), (f"{path.stem}.json", b"{}"))]
    first, second = write_tar(tmp_path / "0.tar", files[:8]), write_tar(tmp_path / "1.tar", files[8:])
    result = embedded(MOTION, first, second, "--output", tmp_path / "out")
    assert result.code == 0 and f"{len(paths)} of .json" in result.out, result
    rows = rows_of(tmp_path / "out")
    same(rows, expected, paths)
    assert [row["shard"] for row in rows] == [str(first)] * 4 + [str(second)] * (len(paths) - 4)
    assert [row["key"] for row in rows] == [path.stem for path in paths]
    assert [row["size"] for row in rows] == [path.stat().st_size for path in paths]


def test_a_tar_file_that_breaks_off_costs_what_it_lacks(collection, tmp_path):
    paths, _ = collection
    whole = write_tar(tmp_path / "whole.tar", [(path.name, path.read_bytes()) for path in paths[:4]])
    size = whole.stat().st_size
    with tarfile.open(whole) as tar:
        third = tar.getmembers()[2].offset
    for name, length, read in (("inside", third + 700, 3), ("between", third, 2), ("noise", third, 2)):
        cut = tmp_path / f"{name}.tar"
        cut.write_bytes(whole.read_bytes()[:length] + (b"noise" * size if name == "noise" else b""))
        assert embedded(MOTION, cut, "--output", tmp_path / name).code == 3
        assert str(cut) in failed_of(tmp_path / name), name
        assert len(rows_of(tmp_path / name)) == min(read, 2), name
    (tmp_path / "text.tar").write_text("no tar file")
    assert embedded(MOTION, tmp_path / "text.tar", "--output", tmp_path / "text").code == 3
    assert rows_of(tmp_path / "text") == [] and "tar file" in failed_of(tmp_path / "text")[str(tmp_path / "text.tar")]


def test_parquet_with_a_column_of_bytes_as_the_hub_has_it(collection, tmp_path):
    paths, expected = collection
    structs = [{"bytes": path.read_bytes(), "path": path.name} for path in paths] + [
        {"bytes": None, "path": "none.png"}
    ]
    pq.write_table(
        pa.table({"image": structs, "label": [0] * len(structs)}), tmp_path / "hub.parquet", row_group_size=4
    )
    assert embedded(MOTION, tmp_path / "hub.parquet", "--output", tmp_path / "out").code == 3
    rows = rows_of(tmp_path / "out")
    same(rows, expected, paths)
    assert [row["key"] for row in rows] == [str(number) for number in range(len(paths))]
    assert failed_of(tmp_path / "out") == {"none.png": "the row holds no bytes"}
    plain = pa.table({"data": [path.read_bytes() for path in paths], "other": [b"x"] * len(paths)})
    pq.write_table(plain, tmp_path / "plain.parquet")
    refused = embedded(MOTION, tmp_path / "plain.parquet", "--output", tmp_path / "plain")
    assert refused.code == 2 and "2 columns of bytes, data, other" in refused.err
    assert embedded(MOTION, tmp_path / "plain.parquet", "--output", tmp_path / "plain", "--column", "data").code == 0
    other = embedded(MOTION, tmp_path / "plain.parquet", "--output", tmp_path / "plain", "--column", "other")
    assert other.code == 2 and "--column 'data', not 'other'" in other.err
    for row, path in zip(rows_of(tmp_path / "plain"), paths):
        assert row["vector"] == pytest.approx(expected[path.name]["vector"], abs=1e-5)


def test_a_container_that_has_changed_is_done_again(collection, tmp_path):
    paths, expected = collection
    shard = write_tar(tmp_path / "0.tar", [("a.png", paths[0].read_bytes()), ("b.png", paths[1].read_bytes())])
    assert embedded(MOTION, shard, "--output", tmp_path / "out").code == 0
    write_tar(shard, [("b.png", paths[1].read_bytes()), ("a.png", paths[2].read_bytes())])
    os.utime(shard, (1, 1))
    result = embedded(MOTION, shard, "--output", tmp_path / "out")
    assert "2 changed" in result.out
    first, second = rows_of(tmp_path / "out")
    assert first["vector"] == pytest.approx(expected[paths[2].name]["vector"], abs=1e-5)
    assert second["vector"] == pytest.approx(expected[paths[1].name]["vector"], abs=1e-5)


def test_members_of_a_tar_file_that_are_no_plain_files(collection, tmp_path):
    paths, expected = collection
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(paths[0], "folder/a.png")
        tar.add(paths[1], "folder/a.png")
        tar.add(tmp_path, "folder.png", recursive=False)
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("passed.txt", tarfile.SYMTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "folder/a.png"
            tar.addfile(member)
    for _ in range(2):
        result = embedded(MOTION, tmp_path / "0.tar", "--output", tmp_path / "out")
        assert result.code == 3 and "1 named twice" in result.out and "1 of .txt" in result.out, result
    failed = failed_of(tmp_path / "out")
    assert sorted(failed) == ["hard.png", "soft.png"] and all("is a link" in reason for reason in failed.values())
    (row,) = rows_of(tmp_path / "out")
    assert row["vector"] == pytest.approx(expected[paths[0].name]["vector"], abs=1e-5)
    missing = tmp_path / os.fsdecode(b"\xff.tar")
    missing.symlink_to(tmp_path / "gone.tar")
    assert embedded(MOTION, missing, "--output", tmp_path / "none").code == 3
    assert ["no such file" in reason for reason in failed_of(tmp_path / "none").values()] == [True]


def test_failures_in_a_container_that_is_gone_or_has_changed(collection, tmp_path):
    paths, _ = collection
    files = [("a.png", paths[0].read_bytes()), ("b.png", b"spoilt")]
    changed, gone = write_tar(tmp_path / "0.tar", files), write_tar(tmp_path / "1.tar", files)
    output = tmp_path / "out"
    assert embedded(MOTION, changed, gone, paths[2], "--output", output).code == 3
    assert [name for name in failed_of(output)] == ["b.png"]  # of both
    write_tar(changed, [files[0], ("b.png", paths[1].read_bytes())])
    os.utime(changed, (1, 1))
    gone.unlink()
    result = embedded(MOTION, paths[2], "--output", output, "--retry-failed")
    assert result.code == 0 and failed_of(output) == {}, result
    assert embedded(MOTION, changed, "--output", output).code == 0
    assert [row["shard"] for row in rows_of(output)] == [str(changed)] * 2 + [str(gone), None]


def test_what_failed_in_a_shard_that_is_not_up_to_date_is_tried_again(tmp_path, monkeypatch):
    folder, output = tmp_path / "photos", tmp_path / "out"
    first, second, third = save_pictures(folder, 3)
    third.write_bytes(b"spoilt")
    assert embedded(MOTION, folder, "--output", output).code == 3
    first.write_bytes(second.read_bytes())
    with monkeypatch.context() as during:

        def interrupt(*_):
            raise KeyboardInterrupt

        during.setattr(run, "finish", interrupt)
        assert embedded(MOTION, folder, "--output", output).code == 130
    result = embedded(MOTION, folder, "--output", output, "--retry-failed")
    assert result.code == 3 and "2 done in this run" in result.out, result


def write_parquet(path, files):
    pq.write_table(pa.table({"image": [{"bytes": data, "path": name} for name, data in files]}), path)
    return path


@pytest.mark.parametrize("write", [write_tar, write_parquet])
def test_a_container_that_changes_after_it_was_listed_gives_no_vector_of_another(
    collection, tmp_path, monkeypatch, write
):
    paths, expected = collection
    files = [(path.name, path.read_bytes()) for path in paths[:3]]
    shard = write(tmp_path / f"0.{'tar' if write is write_tar else 'parquet'}", files)

    finish = run.finish

    def change_and_finish(*arguments):
        write(shard, files[::-1])
        os.utime(shard, (1, 1))
        return finish(*arguments)

    with monkeypatch.context() as during:
        during.setattr(run, "finish", change_and_finish)
        assert embedded(MOTION, shard, "--output", tmp_path / "out").code == 3
    assert rows_of(tmp_path / "out") == []
    assert ["has changed since it was listed" in why for why in failed_of(tmp_path / "out").values()] == [True] * 3
    assert embedded(MOTION, shard, "--output", tmp_path / "out", "--retry-failed").code == 0
    for row in rows_of(tmp_path / "out"):
        assert row["vector"] == pytest.approx(expected[row["path"]]["vector"], abs=1e-5)


def test_names_of_any_kind(collection, tmp_path):
    paths, _ = collection
    folder = tmp_path / "names"
    folder.mkdir()
    names = ["a b.png", "ü.png", "new\nline.png", "NO_SUFFIX", "upper.PNG", "-dash.png"]
    for name in names:
        (folder / name).write_bytes(paths[0].read_bytes())
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:
        file.write(paths[0].read_bytes())
    result = embedded(MOTION, folder, folder / "NO_SUFFIX", "--output", tmp_path / "out")
    assert result.code == 0 and "7 embedded" in result.out and "1 of no suffix" in result.out, result
    found = {os.path.basename(row["path"]) for row in rows_of(tmp_path / "out")}
    assert found == {*names, "\\xff.png"}


def test_moving_pictures_are_videos(tmp_path):
    frames = [Image.new("L", (48, 48), colour) for colour in (0, 60, 120)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "still.gif")
    assert embedded(MOTION, tmp_path / "moving.gif", tmp_path / "still.gif", "--output", tmp_path / "out").code == 0
    moving, still = rows_of(tmp_path / "out")
    assert len(moving["frame_times"]) > 1 and still["frame_times"] is None


def test_an_output_inside_the_inputs_is_no_input(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(bytes(range(100 + number)))
    arguments = (tmp_path, "--output", tmp_path / "out", "--read-files-as", "bytes")
    assert "3 new" in embedded(DIGITS, *arguments).out
    assert "0 new, 0 changed, 3 known" in embedded(DIGITS, *arguments).out


def test_inputs_without_anything_to_read_are_refused(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.json").write_text("{}")
    result = embedded(MOTION, tmp_path / "texts", "--output", tmp_path / "out")
    assert result.code == 2 and "passed over: 1 of .json" in result.err
    (tmp_path / "two.csv").write_text("first,second\na,b\n")
    result = embedded(MOTION, tmp_path / "two.csv", "--output", tmp_path / "out2")
    assert result.code == 2 and "--column" in result.err
