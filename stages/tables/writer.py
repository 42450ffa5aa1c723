"""Write the table: a Parquet file in row groups of bounded rows and bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 8192  # a row group ends with the batch that passes this or GROUP_BYTES
GROUP_BYTES = 64 << 20


class Writer:
    """A Parquet file, written in row groups of bounded rows and bytes."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        blobs = {field.name for field in schema if field.type == pa.binary()}
        # columns of nearly distinct values gain nothing from a dictionary
        distinct = blobs | {"_id", "_source"} | {field.name for field in schema if field.type == pa.float64()}
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression={name: "none" if name in blobs else "zstd" for name in schema.names},
            use_dictionary=[name for name in schema.names if name not in distinct],
            write_statistics=[name for name in schema.names if name not in blobs],
        )
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write()
        self._writer.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows; a row group is written when it is full."""
        self._batches.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        if self._rows:
            group = pa.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(group, row_group_size=self._rows)
        self._batches, self._rows, self._bytes = [], 0, 0
