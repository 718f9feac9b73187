"""The output's files: shards of results, each with its failures and its stamp, and the list of all failures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..staging import write_whole
from .computing import Layout, Row
from .listing import source_of_file
from .plan import Plan, Planned
from .reading import Failure
from .sources import Source, text_of

FAILED = "failed.parquet"
FOOTER = b"embedding"
TIME = pa.timestamp("us", tz="UTC")
ORIGIN = [("path", pa.string()), ("shard", pa.string()), ("key", pa.string()), ("size", pa.int64()), ("mtime", TIME)]
GONE = "is gone"  # of a failed input that is no longer there; not listed as failed


@dataclass(frozen=True)
class Footer:
    """What a shard says of itself.

    Attributes:
        stamp: of the last list that it was made by.
        failed: row in the plan -> why it is missing here.
    """

    stamp: List[Any]
    failed: Dict[int, str]

    @property
    def gone(self) -> int:
        return sum(reason == GONE for reason in self.failed.values())

    def as_bytes(self) -> bytes:
        return json.dumps({"stamp": self.stamp, "failed": sorted(self.failed.items())}, ensure_ascii=False).encode(
            "utf-8"
        )


def schema_of(layout: Layout) -> pa.Schema:
    """The columns of a shard."""
    results = {
        "vectors": [("vector", pa.list_(pa.float32(), layout.width))],
        "tokens": [("tokens", pa.list_(pa.list_(pa.float32(), layout.width)))]
        + ([("patch_positions", pa.list_(pa.list_(pa.int32(), 3)))] if layout.places else []),
        "labels": [("labels", pa.list_(pa.string(), layout.width)), ("scores", pa.list_(pa.float32(), layout.width))],
    }[layout.what]
    revision = ("model_revision", pa.dictionary(pa.int8(), pa.string()))
    return pa.schema([*ORIGIN, ("frame_times", pa.list_(pa.float64())), *results, revision])


def origin_of(source: Source) -> Dict[str, Any]:
    """The columns that say which input a row is."""
    listed_size = None if source.size < 0 or source.in_parquet else source.size
    return {
        "path": source.name,
        "shard": None if source.container is None else text_of(source.container),
        "key": source.key,
        "size": listed_size,
        "mtime": None if source.size < 0 else source.mtime // 1000,
    }


class Shards:
    """The shards of an output folder.

    Args:
        plan: the manifest.
        layout: of the results.
        revision: of the model, for the column of that name.
    """

    def __init__(self, plan: Plan, layout: Layout, revision: str):
        self.plan, self.schema, self.revision = plan, schema_of(layout), revision

    def footer(self, shard: int) -> Optional[Footer]:
        """What stands in a shard's file; None where there is none, or one that is none of this plan's."""
        try:
            content = json.loads((pq.read_metadata(self.plan.file_of(shard)).metadata or {})[FOOTER])
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None
        if not self.plan.knows_stamp(content.get("stamp"), shard):
            return None
        return Footer(content["stamp"], {int(row): reason for row, reason in content["failed"]})

    def left_to_do(self, shard: int, footer: Optional[Footer]) -> List[Planned]:
        """The inputs of a shard that its file lacks, or has from before they changed."""
        if footer is not None and footer.stamp == self.plan.stamp_of(shard):
            return []
        done = -1 if footer is None else footer.stamp[0]
        return [planned for planned in self.plan.inputs_of(shard) if planned.list_number > done]

    def write(self, shard: int, results: Mapping[int, Union[Row, Failure]]) -> Footer:
        """Makes a shard's file of new results, by their row, and of those that the file has already."""
        footer, inputs = self.footer(shard), self.plan.inputs_of(shard)
        failed = {} if footer is None else {row: why for row, why in footer.failed.items() if row not in results}
        old, kept = None, {}
        if footer is not None:
            old = pq.read_table(self.plan.file_of(shard)).cast(self.schema)
            there = [planned.row for planned in inputs if planned.row not in footer.failed]
            kept = {row: place for place, row in enumerate(there) if row not in results}
        failed.update({row: result.reason for row, result in results.items() if isinstance(result, Failure)})
        rows = [planned for planned in inputs if planned.row not in failed]
        table = self._table([planned for planned in rows if planned.row not in kept], results)
        if old is not None:
            order = [kept.get(planned.row, -1) for planned in rows]
            new = iter(range(old.num_rows, old.num_rows + table.num_rows))
            table = pa.concat_tables([old, table]).take([place if place >= 0 else next(new) for place in order])
        made = Footer(self.plan.stamp_of(shard), failed)
        self._store(shard, table, made)
        return made

    def _table(self, planned: List[Planned], results: Mapping[int, Any]) -> pa.Table:
        origins = [origin_of(one.source) for one in planned]
        rows = [results[one.row] for one in planned]
        columns = []
        for field in self.schema:
            if field.name == "model_revision":
                numbers = pa.array([0] * len(rows), pa.int8())
                columns.append(pa.DictionaryArray.from_arrays(numbers, pa.array([self.revision])))
            elif field.name in dict(ORIGIN):
                columns.append(pa.array([origin[field.name] for origin in origins], field.type))
            else:
                columns.append(column_of([row[field.name] for row in rows], field.type))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _store(self, shard: int, table: pa.Table, footer: Footer) -> None:
        table = table.replace_schema_metadata({FOOTER: footer.as_bytes()}).combine_chunks()
        file = self.plan.file_of(shard)
        file.parent.mkdir(parents=True, exist_ok=True)
        dictionaries = ["shard", "model_revision", "labels.list.element"]
        write_whole(
            file,
            lambda path: pq.write_table(
                table, path, compression="zstd", use_dictionary=dictionaries, row_group_size=max(1, table.num_rows)
            ),
        )

    def forgive(self) -> None:
        """Marks failed inputs as changed, so that they are tried again; those that are no longer there, as gone."""
        entries = []
        for shard in range(self.plan.shards):
            footer = self.footer(shard)
            if footer is not None and footer.failed:
                planned = {one.row: one.source for one in self.plan.inputs_of(shard)}
                entries += [(shard, row, again(planned[row])) for row, why in footer.failed.items() if why != GONE]
        self.plan.revise(entries)

    def write_failed(self, footers: Mapping[int, Footer]) -> int:
        """Brings failed.parquet up to date with the shards; gives how many inputs it lists."""
        rows = []
        for shard in sorted(footers):
            if footers[shard].failed:
                sources = {planned.row: planned.source for planned in self.plan.inputs_of(shard)}
                found = sorted(footers[shard].failed.items())
                rows += [{**origin_of(sources[row]), "reason": why} for row, why in found if why != GONE]
        table = pa.Table.from_pylist(rows, schema=pa.schema([*ORIGIN, ("reason", pa.string())]))
        file = self.plan.folder / FAILED
        if not file.is_file() or not _same(file, table):
            write_whole(file, lambda path: pq.write_table(table, path, compression="zstd"))
        return len(rows)


def again(source: Source) -> Source:
    """A failed input as it is now; gone is also what must be listed anew, since no time that is found then is -1."""
    now = source_of_file(source.path if source.container is None else source.container)
    moved = source.container is not None and now.mtime != source.mtime  # what lies where it lay may be another input
    if now.size < 0 or moved or source.problem is not None:
        return source._replace(size=-1, mtime=-1, problem=GONE)
    return now if source.container is None else source


def _same(file: Path, table: pa.Table) -> bool:
    try:
        return pq.read_table(file).equals(table)
    except (OSError, pa.ArrowException):
        return False


def column_of(values: List[Any], kind: pa.DataType) -> pa.Array:
    """Values of one column, arrays of numpy among them, without a Python object for every number."""
    if not values or values[0] is None or not hasattr(values[0], "dtype"):
        return pa.array(values, kind)
    flat = np.concatenate([value.reshape(-1) for value in values])
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), type=kind)
    inner = kind.value_type
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat, inner.value_type), type=inner)
    offsets = np.cumsum([0, *(len(value) for value in values)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), rows, type=kind)
