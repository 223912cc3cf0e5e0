"""Profiles: what the blocks of a model cost on each device, and how that is known."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import field, replace
from functools import cached_property
from math import isclose
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from planner.model.cluster import Count, Positive
from planner.model.errors import InputError
from planner.model.record import LATER, record
from planner.model.segments import Share, on_device, share_text
from planner.model.settings import ModelSettings

MOST_US = 10**12  # eleven days: more is a slip of the unit
MOST_BATCH = 32_767  # what records of runs hold

Batch = Annotated[int, Ge(1), Le(MOST_BATCH)]


@record
class Provenance:
    """Where numbers come from.

    ``kind`` is *measured* (by running), *estimated* (by a model, ``method`` names it) or *bound* (an upper
    bound that holds with probability ``level``). ``repeats`` counts the timed runs behind each number.
    """

    kind: Literal["measured", "estimated", "bound"]
    method: str
    date: str | None = None
    runtime: str | None = None
    repeats: Positive | None = None
    level: Annotated[float, Gt(0), Lt(1)] | None = None


@record
class Block:
    """A contiguous run of layers, the unit that plans divide.

    ``activation_bytes`` is the peak of live tensors while the block runs, per request; 0 when unknown,
    as for ``parameter_bytes``.
    """

    layers: Annotated[tuple[str, ...], MinLen(1)]
    parameter_bytes: Count = 0
    activation_bytes: Count = 0


@record
class LatencyTable:
    """Latencies of every block on one share of one device type.

    ``latency_us[batch][block]`` in µs; row i is for batch size ``batches[i]``. ``spread[batch][block]`` is
    the standard deviation of the logarithm of the single timings behind it, where measured.
    ``peak_memory_bytes[batch]`` is by how much a process that runs the whole model grew at most, where measured:
    weights, what the runtime makes of them, and activations. ``beside`` names the models that ran on the rest of the
    device meanwhile; where it is empty, neighbours were idle, or equal to this model on a share 1/k.
    ``measured[batch][block]`` tells which numbers of a table that was completed (`planner.completion`) were measured;
    None where all are of the provenance's kind.
    """

    device: Annotated[str, MinLen(1)]
    share: Share
    batches: Annotated[tuple[Batch, ...], MinLen(1)]
    latency_us: tuple[tuple[Annotated[int, Ge(0), Le(MOST_US)], ...], ...]
    provenance: Provenance
    spread: tuple[tuple[Annotated[float, Ge(0)], ...], ...] | None = None
    peak_memory_bytes: tuple[Count, ...] | None = None
    beside: tuple[str, ...] = field(default=(), metadata=LATER)
    measured: tuple[tuple[bool, ...], ...] | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Refuse unordered batches and ragged tables."""
        where = f"latency table of {self.device}, share {share_text(self.share)}"
        if list(self.batches) != sorted(set(self.batches)):
            raise InputError(f"{where}: batches: expected increasing numbers, got {list(self.batches)}")
        for name, rows in (("latency_us", self.latency_us), ("spread", self.spread), ("measured", self.measured)):
            if rows is None:
                continue
            if len(rows) != len(self.batches):
                raise InputError(f"{where}: {name}: expected {len(self.batches)} rows, one per batch, got {len(rows)}")
            if {len(row) for row in rows} != {len(self.latency_us[0])}:
                raise InputError(f"{where}: {name}: expected rows of equal length, got {[len(r) for r in rows]}")
        if self.peak_memory_bytes is not None and len(self.peak_memory_bytes) != len(self.batches):
            raise InputError(
                f"{where}: peak_memory_bytes: expected {len(self.batches)} numbers, one per batch, "
                f"got {len(self.peak_memory_bytes)}"
            )

    def block_latency_us(self, batch: int) -> tuple[int, ...]:
        """Return the latency of each block at ``batch`` requests, in µs and at least 1.

        Between two profiled batch sizes latencies are interpolated linearly and rounded up; below the
        smallest profiled batch its row holds (a smaller batch is not assumed to be faster).

        Raises
        ------
        InputError
            The batch is larger than every profiled one.
        """
        below, at = self._rows(batch)
        above = self.latency_us[at]
        if below == at:
            return tuple(max(1, value) for value in above)
        low, high = self.batches[below], self.batches[at]
        return tuple(
            max(1, -((lower * (high - batch) + upper * (batch - low)) // -(high - low)))
            for lower, upper in zip(self.latency_us[below], above, strict=True)
        )

    def measured_blocks(self, batch: int) -> tuple[bool, ...]:
        """Tell of each block's latency at ``batch`` requests whether it rests on measurements alone.

        Raises InputError as `block_latency_us` does.
        """
        rows = self._rows(batch)
        if self.measured is None:
            return (self.provenance.kind == "measured",) * len(self.latency_us[0])
        return tuple(self.measured[rows[0]][block] and known for block, known in enumerate(self.measured[rows[1]]))

    def _rows(self, batch: int) -> tuple[int, int]:
        """Return the rows between which a batch size lies, twice the same where it is profiled or the smallest."""
        at = bisect_left(self.batches, batch)
        if batch < 1 or at == len(self.batches):
            raise InputError(
                f"no latency for ({self.device}, share {share_text(self.share)}, batch {batch}); "
                f"profiled batches are {list(self.batches)}: profile it or estimate it"
            )
        return (at, at) if self.batches[at] == batch or at == 0 else (at - 1, at)


@record
class Profile:
    """A model cut into blocks, with latency tables per device and share.

    ``cut_bytes[j]`` is the size per request of all tensors alive between block j and block j + 1.
    ``model_sha256`` is the hash of the ONNX file, None where there is none (published or imported numbers).
    ``input_bytes`` is the size of what a request brings, None where unknown. ``outputs`` are the element type and shape
    of what it gets, for one request, as in ``FLOAT[1,1000]``; None where unknown. ``settings`` are those with which the
    file was read, None for the usual ones. ``bounds`` are tables of upper bounds beside those of ``tables``, any number
    of levels (`planner.completion`).
    """

    name: Annotated[str, MinLen(1)]
    blocks: Annotated[tuple[Block, ...], MinLen(1)]
    cut_bytes: tuple[Count, ...]
    tables: tuple[LatencyTable, ...]
    model_sha256: str | None = None
    settings: ModelSettings | None = field(default=None, metadata=LATER)
    bounds: tuple[LatencyTable, ...] = field(default=(), metadata=LATER)
    input_bytes: Count | None = field(default=None, metadata=LATER)
    outputs: tuple[str, ...] | None = field(default=None, metadata=LATER)

    def __str__(self) -> str:
        """Return the model, and what it takes as a whole on each device and share, a line per table."""
        lines = [f"{self.name}: {len(self.blocks)} blocks"]
        for table in self.tables:
            latencies = (
                f"{sum(row) / 1000:.2f} ms at batch {batch}"
                for batch, row in zip(table.batches, table.latency_us, strict=True)
            )
            lines.append(f"  {on_device(table.device, table.share)}, {table.provenance.kind}: {', '.join(latencies)}")
        return "\n".join(lines)

    def __post_init__(self) -> None:
        """Refuse tables that do not fit the blocks, and two tables for one share of a device."""
        if len(self.cut_bytes) != len(self.blocks) - 1:
            raise InputError(
                f"profile {self.name}: cut_bytes: expected {len(self.blocks) - 1} numbers, "
                f"one between each two of {len(self.blocks)} blocks, got {len(self.cut_bytes)}"
            )
        for table in (*self.tables, *self.bounds):
            if len(table.latency_us[0]) != len(self.blocks):
                raise InputError(
                    f"profile {self.name}: latency table of {table.device}, share {share_text(table.share)}: "
                    f"expected {len(self.blocks)} numbers a row, one per block, got {len(table.latency_us[0])}"
                )
        if len(self._tables) != len(self.tables):
            keys = [f"{table.device} {share_text(table.share)}" for table in self.tables]
            raise InputError(f"profile {self.name}: tables: one per device and share expected, got {keys}")

    @cached_property
    def _tables(self) -> Mapping[tuple[str, Share], LatencyTable]:
        return {(table.device, table.share): table for table in self.tables}

    def bounded(self, level: float) -> "Profile":
        """Return the profile that plans rely on at a level: bounds for what was estimated, measurements as they are.

        Raises
        ------
        InputError
            An estimated table has no bound of that level.
        """
        bounds = {
            (table.device, table.share): table
            for table in self.bounds
            if table.provenance.level is not None and isclose(table.provenance.level, level)
        }
        tables = []
        for table in self.tables:
            found = bounds.get((table.device, table.share))
            if found is None and table.provenance.kind == "estimated":
                levels = sorted({other.provenance.level for other in self.bounds if other.provenance.level})
                raise InputError(
                    f"profile {self.name} has no bound of level {level:g} for {table.device} "
                    f"{share_text(table.share)}, which is estimated (it has levels {levels}); make one with "
                    f"`python -m planner complete --bound {level:g}`"
                )
            tables.append(found or table)
        return replace(self, tables=tuple(tables), bounds=())

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the device types that have a table, in order of appearance."""
        return tuple(dict.fromkeys(table.device for table in self.tables))

    def has(self, device: str, share: Share) -> bool:
        """Tell whether there are latencies for a share of a device (`planner.model.segments`)."""
        return (device, share) in self._tables

    def table(self, device: str, share: Share) -> LatencyTable:
        """Return the latencies on a share of a device.

        Raises
        ------
        InputError
            There is no such table.
        """
        if not self.has(device, share):
            have = ", ".join(f"{name} {share_text(each)}" for name, each in self._tables)
            raise InputError(
                f"profile {self.name} has no latencies for {device} {share_text(share)} (it has {have}); "
                "profile or estimate them"
            )
        return self._tables[device, share]

    def stage_latency_us(self, device: str, share: Share, batch: int, first: int, last: int) -> int:
        """Return L_s, the latency (µs) of blocks [first, last) at ``batch`` on a share of a device.

        Each block counts at least 1 µs. Raises InputError as `table` and
        `LatencyTable.block_latency_us` do.
        """
        return sum(self.table(device, share).block_latency_us(batch)[first:last])

    def memory_bytes(self, batch: int, first: int, last: int) -> int:
        """Return what a slice of blocks [first, last) holds: all parameters, and the peak activations at ``batch``."""
        blocks = self.blocks[first:last]
        return sum(block.parameter_bytes for block in blocks) + batch * max(block.activation_bytes for block in blocks)
