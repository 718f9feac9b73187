"""What the command line names, as a stream of sources: the same order whatever the file system's."""

import csv
import io
import os
from codecs import BOM_UTF8
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, plain, some, system_errors_told
from ..foreign.files import open_regular
from .sources import Source, suffix_of
from .tars import list_tar

MAX_LINE = 1 << 16  # bytes of a path
PATH_COLUMNS = ("path", "file", "filename", "file_name", "file_path", "filepath", "image_path", "video_path")


class Listing:
    """The inputs that arguments stand for.

    Args:
        arguments: files, folders, lists (.txt, .csv, .parquet) and containers (.tar, .parquet).
        suffixes: of the files in folders and tar files that the model can read; None for all.
        column: of a CSV or Parquet file; None to find it.
        leave_out: a folder that is not descended into: the output.

    Attributes:
        skipped: how many files were passed over, by suffix.
    """

    def __init__(
        self,
        arguments: Sequence[Path],
        suffixes: Optional[frozenset],
        column: Optional[str] = None,
        leave_out: Optional[Path] = None,
    ):
        self.arguments, self.column = list(arguments), column
        self.suffixes = suffixes
        self.leave_out = None if leave_out is None else os.path.realpath(leave_out)
        self.skipped: Counter = Counter()
        for argument in self.arguments:
            if not os.path.lexists(argument):
                raise UserError(f"no such file or folder: {argument}; accepted: files, folders, lists and shards")

    def __iter__(self) -> Iterator[Source]:
        for argument in self.arguments:
            name = straightened(os.fsencode(argument))
            with system_errors_told(f"could not read {argument}"):
                if os.path.isdir(name):
                    yield from self._folder(name)
                else:
                    yield from self._readers().get(suffix_of(name), self._one)(name)

    def _readers(self) -> "dict[str, Callable[[bytes], Iterator[Source]]]":
        return {".txt": self._text, ".csv": self._table, ".parquet": self._parquet, ".tar": self._tar}

    def _one(self, name: bytes) -> Iterator[Source]:
        yield source_of_file(name)

    def wants(self, name: bytes) -> bool:
        wanted = self.suffixes is None or suffix_of(name) in self.suffixes
        if not wanted:
            self.skipped[suffix_of(name) or "no suffix"] += 1
        return wanted

    def _folder(self, folder: bytes) -> Iterator[Source]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield Source(folder, problem=f"the folder cannot be listed: {error.strerror}")
            return
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if os.path.realpath(entry.path) != os.fsencode(self.leave_out or ""):
                    yield from self._folder(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # False where a link leads in a circle
                self.skipped["links to folders"] += 1
            elif self.wants(entry.name):
                yield source_of_file(entry.path)

    def _text(self, name: bytes) -> Iterator[Source]:
        with io.BufferedReader(open_regular(Path(os.fsdecode(name)))) as file:
            if file.peek(len(BOM_UTF8)).startswith(BOM_UTF8):
                file.read(len(BOM_UTF8))
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise UserError(
                        f"{os.fsdecode(name)} has a line of more than {MAX_LINE:,} bytes; accepted: a path a line"
                    )
                if path := line.rstrip(b"\r\n"):
                    yield listed(path)

    def _table(self, name: bytes) -> Iterator[Source]:
        where = os.fsdecode(name)
        with io.TextIOWrapper(
            io.BufferedReader(open_regular(Path(where))), encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file:
            try:
                rows = csv.reader(file)
                header = next(rows, [])
                place = header.index(self._column_of(where, header))
                for row in filter(None, rows):
                    if len(row) <= place:
                        raise UserError(
                            f"{where}: line {rows.line_num} has {len(row)} fields, its header {len(header)}"
                        )
                    yield listed(os.fsencode(row[place]))
            except csv.Error as error:
                raise UserError(f"{where} is no CSV file that can be read: {error}") from error

    def _column_of(self, where: str, names: List[str]) -> str:
        """Which column holds the paths."""
        likely = [self.column] if self.column else [name for name in PATH_COLUMNS if name in names]
        chosen = likely[0] if likely else names[0] if len(names) == 1 else None
        if chosen not in names:
            raise UserError(
                f"{where} has the columns {some(names) or '(none)'}; name the one with the paths: --column NAME"
            )
        return chosen

    def _parquet(self, name: bytes) -> Iterator[Source]:
        where = os.fsdecode(name)
        with open_regular(Path(where)) as opened:  # a pipe would be waited for
            status = os.fstat(opened.fileno())
        try:
            with pq.ParquetFile(where) as file:
                column = bytes_column(file.schema_arrow, self.column)
                if column is None:
                    yield from self._paths_in(where, file)
                    return
                names = member_names(file, column)
                for number in range(file.metadata.num_rows):
                    place = {"container": name, "key": str(number), "size": status.st_size}
                    place.update(mtime=status.st_mtime_ns, column=column)
                    yield Source(next(names), **place)
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a path that is no UTF-8
            yield Source(name, problem=f"is no Parquet file that can be read: {plain(error, 200)}")

    def _paths_in(self, where: str, file: pq.ParquetFile) -> Iterator[Source]:
        kinds = {field.name: field.type for field in file.schema_arrow}
        texts = [key for key, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
        column = self._column_of(where, texts)
        for batch in file.iter_batches(columns=[column]):
            for path in batch.column(0).to_pylist():
                yield listed((path or "").encode("utf-8"))

    def _tar(self, name: bytes) -> Iterator[Source]:
        return list_tar(name, self.wants)


def listed(path: bytes) -> Source:
    """A path that stands in a list; relative ones start from the working directory."""
    return source_of_file(straightened(path)) if path else Source(b"", problem="the list has no path here")


def straightened(path: bytes) -> bytes:
    """A path without `./` and `//`. One with `..` stays: behind a link, a shorter one would name another file."""
    return path if b".." in path.split(os.fsencode(os.sep)) else os.path.normpath(path)


def source_of_file(path: bytes) -> Source:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return Source(path)  # reading it will tell why
    return Source(path, size=status.st_size, mtime=status.st_mtime_ns)


def bytes_column(schema: pa.Schema, asked: Optional[str]) -> Optional[str]:
    """The column whose values are files: binary, or a struct with `bytes`, as the Hub's image datasets have it."""
    found = [field.name for field in schema if is_binary(bytes_type(field.type))]
    if asked:
        return asked if asked in found else None
    if len(found) > 1:
        raise UserError(f"a Parquet file has {len(found)} columns of bytes, {some(found)}; name one: --column NAME")
    return found[0] if found else None


def bytes_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return kind.field("bytes").type
    return kind


def is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def member_names(file: pq.ParquetFile, column: str) -> Iterator[bytes]:
    """What each row says its file was called; the row's number where it says nothing."""
    kind = file.schema_arrow.field(column).type
    number = 0
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        for batch in file.iter_batches(columns=[f"{column}.path"]):
            for entry in batch.column(0).to_pylist():
                path = (entry or {}).get("path")
                yield path.encode("utf-8") if path else str(number).encode()
                number += 1
    while True:
        yield str(number).encode()
        number += 1
