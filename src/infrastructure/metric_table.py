"""Numbers that all workers share: each writes a part of its own, and every one of them can read all.

    part:  [ gauges | counters of the worker ]  [ row of "other" | row | row | ... free ]
                                                  a name and the counters that go by it

The memory belongs to no process. What a worker counted is still there when it was killed, and the one that
takes its place counts on. There are no locks: a cell has one writer, and is read and written in one piece.
"""

import multiprocessing
from collections.abc import Iterator
from typing import Final

CELL: Final = 8
"""Bytes of a number."""
NAME: Final = 128
"""Bytes of a row's name, as long as a model's id may be."""
OTHER: Final = "other"
"""The name of the row for all that has none of its own."""


class MetricTable:
    """The memory; handed to workers when they are spawned."""

    def __init__(self, workers: int, *, gauges: int, counters: int, rows: int, columns: int) -> None:
        """`rows` are the names that each part has room for, `columns` the counters of a row."""
        shared = multiprocessing.get_context("spawn")
        self.workers = workers
        self.gauges = gauges
        self.rows = rows
        self.columns = columns
        self.first_row = 1 + gauges + counters
        self.size = self.first_row + rows * columns
        self._cells = shared.RawArray("d", workers * self.size)
        self._names = shared.RawArray("c", workers * rows * NAME)

    def part(self, worker: int) -> "Part":
        """The part of one worker; there is one writer of it at a time."""
        return Part(self, worker, memoryview(self._cells).cast("B"), memoryview(self._names).cast("B"))

    def parts(self) -> Iterator["Part"]:
        """All parts, to be read."""
        return (self.part(worker) for worker in range(self.workers))

    def forget(self, worker: int) -> None:
        """Set the gauges of a worker that ended to zero; its counters stay."""
        part = self.part(worker)
        for cell in range(self.gauges):
            part.cells[1 + cell] = 0.0


class Part:
    """What one worker wrote. Cell 0 is the number of its rows; gauges and counters follow."""

    def __init__(self, table: MetricTable, worker: int, cells: memoryview, names: memoryview) -> None:
        self._table = table
        width = table.rows * NAME
        self._names = names[worker * width : (worker + 1) * width]
        start = worker * table.size * CELL
        self.cells: memoryview[float] = cells[start : start + table.size * CELL].cast("d")
        """Numbers, to be read and written in place."""

    def open(self) -> dict[str, int]:
        """The first cell of every row by its name, to begin writing; `OTHER` is always there."""
        rows = dict(self.named())
        if not rows:
            self.add(OTHER, rows)
        return rows

    def named(self) -> Iterator[tuple[str, int]]:
        """The rows that are in use: each one's name and first cell."""
        table = self._table
        for row in range(int(self.cells[0])):
            name = bytes(self._names[row * NAME : (row + 1) * NAME]).rstrip(b"\0").decode("ascii")
            yield name, table.first_row + row * table.columns

    def add(self, name: str, rows: dict[str, int]) -> int:
        """Give a name its row, noted in `rows`; that of `OTHER` when there is no room, or the name has none.

        Answers the row's first cell.
        """
        table, row = self._table, int(self.cells[0])
        if row == table.rows or len(name) > NAME or not name.isascii():
            return rows[OTHER]
        self._names[row * NAME : (row + 1) * NAME] = name.encode("ascii").ljust(NAME, b"\0")
        rows[name] = table.first_row + row * table.columns
        self.cells[0] = row + 1.0  # last, so that no reader sees half a name
        return rows[name]
