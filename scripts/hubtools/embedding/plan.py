"""The manifest: what is embedded, how, and which input belongs to which shard. It is written before the work begins.

`manifest.json` names the model, the options, and the lists in `inputs/`. The first list gives every input its shard and
its row there. A later one gives places to inputs that have come since, and says of changed ones, at their old places, what
they are now. A shard is done when its file bears the stamp of the last list that says anything of it.
"""

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Tuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, shown
from ..foreign.files import read_json_object
from ..staging import replace_text, write_whole
from .files import hash_content
from .sources import Source, weight_of

FORMAT = 1
MANIFEST = "manifest.json"
LISTS = "inputs"
SHARDS = "data"
ROWS_AT_ONCE = 1 << 16
COLUMNS = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("path", pa.binary()),
        ("container", pa.binary()),
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("mtime", pa.int64()),
        ("column", pa.string()),
        ("problem", pa.string()),
    ]
)
IDENTITY = ["path", "container", "key"]


class Planned(NamedTuple):
    """An input at its place in a shard, and the number of the list that last spoke of it."""

    row: int
    source: Source
    list_number: int


class Found(NamedTuple):
    """What comparing the inputs with the manifest shows."""

    new: int
    changed: int
    unchanged: int
    repeated: int


class Plan:
    """The manifest of an output folder.

    Args:
        folder: the output.
        identity: the model and the options that decide about bytes; an existing manifest must state the same.
        shard_size: inputs of a shard; a video counts as VIDEO_WEIGHT.

    Raises:
        UserError: the folder holds something else, or embeddings of another model or made otherwise.
    """

    def __init__(self, folder: Path, identity: Dict[str, Any], shard_size: int):
        self.folder, self.identity, self.shard_size = folder, identity, shard_size
        self.lists: List[Dict[str, Any]] = []
        self._groups: List[Dict[int, int]] = []  # of each list: shard -> row group
        if os.path.lexists(folder / MANIFEST):
            self._read()

    def _read(self) -> None:
        stated = read_json_object(self.folder / MANIFEST)
        where = f"output {self.folder}"
        if stated.get("format") != FORMAT or not isinstance(stated.get("lists"), list):
            raise UserError(f"{where}: {MANIFEST} is of format {shown(stated.get('format'))}; accepted: {FORMAT}")
        for part, kind in (("model", "of another model"), ("options", "with other options")):
            ours, theirs = self.identity[part], stated.get(part) or {}
            for key in sorted({*ours, *theirs}):
                if ours.get(key) != theirs.get(key):
                    name = f"--{key.replace('_', '-')}" if part == "options" else key
                    raise UserError(
                        f"{where} was made {kind}: {name} {shown(theirs.get(key))}, not {shown(ours.get(key))}; name another --output"
                    )
        for entry in stated["lists"]:
            self._take(entry)

    def _take(self, entry: Dict[str, Any]) -> None:
        file = self.folder / LISTS / f"{len(self.lists):05d}.parquet"
        try:
            metadata = pq.read_metadata(file)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file}, which {MANIFEST} names, cannot be read: {error}") from error
        if metadata.num_rows != entry["inputs"]:
            raise UserError(f"{file} lists {metadata.num_rows:,} inputs, {MANIFEST} says {entry['inputs']:,}")
        groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
        self._groups.append({group.column(0).statistics.min: number for number, group in enumerate(groups)})
        self.lists.append(entry)

    # --- what there is

    @property
    def shards(self) -> int:
        return 1 + max((max(groups) for groups in self._groups if groups), default=-1)

    @property
    def inputs(self) -> int:
        return sum(entry["inputs"] - entry["changed"] for entry in self.lists)

    def file_of(self, shard: int) -> Path:
        return self.folder / SHARDS / f"{shard:06d}.parquet"

    def stamp_of(self, shard: int) -> List[Any]:
        """The last list that says anything of a shard: its number and its hash."""
        number = max(number for number, groups in enumerate(self._groups) if shard in groups)
        return [number, self.lists[number]["sha256"]]

    def knows_stamp(self, stamp: Any, shard: int) -> bool:
        """Whether a shard's stamp is of one of these lists, be it the last for the shard or an earlier one."""
        return (
            isinstance(stamp, list)
            and len(stamp) == 2
            and stamp[0] in range(len(self.lists))
            and stamp[1] == self.lists[stamp[0]]["sha256"]
            and shard in self._groups[stamp[0]]
        )

    def inputs_of(self, shard: int) -> List[Planned]:
        """The inputs of a shard in the order of its rows, as the last list has each."""
        latest: Dict[int, Planned] = {}
        for number, groups in enumerate(self._groups):
            if shard in groups:
                with pq.ParquetFile(self._list(number)) as file:
                    table = file.read_row_group(groups[shard])
                columns = [table[name].to_pylist() for name in COLUMNS.names[1:]]
                for row, *rest in zip(*columns):
                    latest[row] = Planned(row, Source(*rest), number)
        return [latest[row] for row in sorted(latest)]

    def _list(self, number: int) -> Path:
        return self.folder / LISTS / f"{number:05d}.parquet"

    # --- what has come

    def update(self, sources: Iterable[Source]) -> Found:
        """Compares the inputs with the lists, and writes another list where any is new or has changed."""
        known = Known(self)
        batches = [batch for batch in _batches(sources, known, self._places())]
        counts = {name: sum(getattr(batch, name) for batch in batches) for name in Found._fields}
        entries = [batch.table for batch in batches if batch.table.num_rows]
        if entries:
            self._append(pa.concat_tables(entries), counts["changed"])
        return Found(**counts)

    def revise(self, entries: List[Tuple[int, int, Source]]) -> None:
        """Writes a list that says anew what stands at places, (shard, row), that have their inputs already."""
        if entries:
            rows = [(shard, row, *source) for shard, row, source in entries]
            columns = [pa.array(column, kind) for column, kind in zip(zip(*rows), COLUMNS.types)]
            self._append(pa.Table.from_arrays(columns, schema=COLUMNS), len(rows))

    def _places(self) -> "_Places":
        return _Places(self.shards, self.shard_size)

    def _append(self, table: pa.Table, changed: int) -> None:
        """Writes a list, one row group for each shard, and then the manifest that names it."""
        table = table.sort_by([("shard", "ascending"), ("row", "ascending")])
        numbers = table["shard"].to_numpy()
        bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        file = self._list(len(self.lists))
        file.parent.mkdir(parents=True, exist_ok=True)

        def write(path: Path) -> None:
            with pq.ParquetWriter(path, COLUMNS, compression="zstd", use_dictionary=["container", "column"]) as writer:
                for start, stop in zip(bounds, bounds[1:]):
                    writer.write_table(table.slice(start, stop - start), row_group_size=stop - start)

        write_whole(file, write)
        entry = {"inputs": table.num_rows, "changed": changed, "sha256": hash_content(file)}
        content = {"format": FORMAT, **self.identity, "lists": [*self.lists, entry]}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        replace_text(self.folder / MANIFEST, text)
        self._take(entry)


class _Places:
    """Gives new inputs their shard and row: a shard ends where the weights of its inputs reach its size."""

    def __init__(self, shard: int, size: int):
        self.shard, self.size, self.row, self.weight = shard, size, 0, 0

    def next(self, path: bytes) -> Tuple[int, int]:
        if self.weight >= self.size:
            self.shard, self.row, self.weight = self.shard + 1, 0, 0
        place = self.shard, self.row
        self.row, self.weight = self.row + 1, self.weight + weight_of(path)
        return place


def identities(paths, containers, keys) -> np.ndarray:
    """128 bits for each input, (N, 2) int64: who it is, whatever it holds. Of this process alone: Python's hashes are seeded."""
    names = [
        path if container is None else b"%b\0%b\0%b" % (container, path, key.encode())
        for path, container, key in zip(paths, containers, keys)
    ]
    who = np.empty((len(names), 2), np.int64)
    who[:, 0] = np.fromiter(map(hash, names), np.int64, len(names))
    who[:, 1] = np.fromiter((hash(name + b"\0") for name in names), np.int64, len(names))
    return who


class Known:
    """The identities in a plan's lists, sorted, with size, time and place as the last list has them."""

    def __init__(self, plan: Plan):
        names, parts = ["size", "mtime", "shard", "row"], []
        for number in range(len(plan.lists)):
            with pq.ParquetFile(plan._list(number)) as file:
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=[*IDENTITY, *names]):
                    who = identities(*(batch[name].to_pylist() for name in IDENTITY))
                    parts.append((who[:, 0], who[:, 1], *(batch[name].to_numpy() for name in names)))
        kinds = (np.int64, np.int64, np.int64, np.int64, np.int32, np.int32)
        columns = [np.concatenate([np.empty(0, kind), *rows]) for kind, rows in zip(kinds, zip(*parts))] if parts else [
            np.empty(0, kind) for kind in kinds
        ]  # fmt: skip
        del parts
        order = np.lexsort((columns[1], columns[0]))  # stable: of equal ones the last is of the last list
        for place, column in enumerate(columns):
            columns[place] = column[order]
        self.first, self.second, *self.rest = columns
        if len(self.first):
            same = (self.first[1:] == self.first[:-1]) & (self.second[1:] == self.second[:-1])
            keep = np.append(~same, True)
            self.first, self.second, *self.rest = (column[keep] for column in (self.first, self.second, *self.rest))

    def find(self, who: np.ndarray) -> np.ndarray:
        """(N, 2) identities -> (N,) indices, -1 for strangers."""
        if not len(self.first):
            return np.full(len(who), -1)
        order = np.argsort(who[:, 0])  # in order, since leaping through a long array is slow
        place = np.empty(len(who), np.int64)
        place[order] = np.searchsorted(self.first, who[order, 0])
        found = np.full(len(who), -1)
        for _ in range(len(self.first)):  # once; more often where two share their first 64 bits
            inside = np.minimum(place, len(self.first) - 1)
            alike = (place < len(self.first)) & (self.first[inside] == who[:, 0])
            hit = alike & (self.second[inside] == who[:, 1])
            found[hit] = inside[hit]
            if not (alike & ~hit).any():
                break
            place = place + (alike & ~hit)
        return found


class _Batch(NamedTuple):
    """Entries for the next list, and the counts of Found."""

    table: pa.Table
    new: int
    changed: int
    unchanged: int
    repeated: int


def _batches(sources: Iterable[Source], known: Known, places: _Places) -> Iterator[_Batch]:
    met: set = set()  # what is new or changed in this run; unchanged inputs are told by `seen`
    seen = np.zeros(len(known.first), dtype=bool)
    rows: List[Source] = []
    for source in sources:
        rows.append(source)
        if len(rows) == ROWS_AT_ONCE:
            yield _compared(rows, known, places, met, seen)
            rows = []
    if rows:
        yield _compared(rows, known, places, met, seen)


def _compared(rows: List[Source], known: Known, places: _Places, met: set, seen: np.ndarray) -> _Batch:
    columns = dict(zip(Source._fields, zip(*rows)))
    who = identities(*(columns[name] for name in IDENTITY))
    found = known.find(who)
    same = _unchanged(found, columns, known, seen)
    entries: Dict[str, list] = {name: [] for name in COLUMNS.names}
    counts = {**dict.fromkeys(Found._fields, 0), "unchanged": int(same.sum())}
    _, _, shards, numbers = known.rest
    for number in np.flatnonzero(~same).tolist():
        source, place, name = rows[number], int(found[number]), who[number].tobytes()
        if name in met or place >= 0 and seen[place]:
            counts["repeated"] += 1
            continue
        if place < 0:
            kind, where = "new", places.next(source.path)
            met.add(name)
        else:
            seen[place] = True
            kind, where = "changed", (int(shards[place]), int(numbers[place]))
        counts[kind] += 1
        for column, value in zip(entries.values(), (*where, *source)):
            column.append(value)
    return _Batch(pa.table(entries, schema=COLUMNS), **counts)


def _unchanged(found: np.ndarray, columns: Dict[str, tuple], known: Known, seen: np.ndarray) -> np.ndarray:
    """Which inputs are met for the first time and are as the lists have them, (N,) bool; marks them as seen."""
    sizes, times = known.rest[:2]
    candidates = np.flatnonzero(found >= 0)
    place = found[candidates]
    _, first = np.unique(place, return_index=True)  # one may be named twice
    candidates, place = candidates[first], place[first]
    equal = np.array(columns["size"])[candidates] == sizes[place]
    equal &= np.array(columns["mtime"])[candidates] == times[place]
    equal &= ~seen[place]
    seen[place[equal]] = True
    same = np.zeros(len(found), dtype=bool)
    same[candidates[equal]] = True
    return same
