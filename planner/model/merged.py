"""Merged blocks: blocks of several DNNs that are one copy of their weights, and so may be served by one pool.

Merged blocks compute the same from weights that are equal to the byte, so that a batch may hold requests of all their
DNNs. Measured twice their latencies differ a little: plans rely on the largest (`with_largest_latencies`).
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from annotated_types import MinLen

from planner.model.cluster import Count, Positive
from planner.model.dnn import Dnn
from planner.model.errors import InputError
from planner.model.profile import LatencyTable, Profile
from planner.model.record import record
from planner.model.segments import Share

Copy = tuple[int, int]  # one of the merged runs of blocks, and a block of it
Variant = tuple[str, str]  # names of a DNN and of its variant


@record
class MergedMember:
    """Where merged blocks begin in a variant of a DNN; ``variant`` may be left out where the DNN has only one."""

    dnn: Annotated[str, MinLen(1)]
    first_block: Count = 0
    variant: str | None = None


@record
class Merged:
    """A run of ``blocks`` blocks that is one copy in all members: any stage within it may be theirs together."""

    members: Annotated[tuple[MergedMember, ...], MinLen(1)]
    blocks: Positive = 1


def copies_of(dnns: Sequence[Dnn], merged: Sequence[Merged]) -> Mapping[Variant, tuple[Copy | None, ...]]:
    """Return for every variant with merged blocks which copy each of its blocks is; None where it is its own.

    Raises
    ------
    InputError
        A member that there is not, blocks that are unlike, or merged twice.
    """
    found: dict[Variant, list[Copy | None]] = {}
    for number, one in enumerate(merged):
        where = f"merged[{number}]"
        profiles = [(member, _variant(dnns, member, f"{where}.members[{m}]")) for m, member in enumerate(one.members)]
        names = [(member.dnn, profile.name) for member, profile in profiles]
        if len(set(names)) < 2 or len(set(names)) < len(names):
            raise InputError(f"{where}: expected two or more different DNNs or variants, got {names}")
        for m, (member, profile) in enumerate(profiles):
            last = member.first_block + one.blocks
            if last > len(profile.blocks):
                raise InputError(
                    f"{where}.members[{m}]: expected blocks within the {len(profile.blocks)} of {profile.name}, got "
                    f"[{member.first_block}, {last})"
                )
            _refuse_unlike(profiles[0], (member, profile), one.blocks, where)
            copies = found.setdefault((member.dnn, profile.name), [None] * len(profile.blocks))
            for offset in range(one.blocks):
                block = member.first_block + offset
                if copies[block] is not None:
                    raise InputError(f"{where}: block {block} of {member.dnn} is merged twice; join the two into one")
                copies[block] = number, offset
    return {variant: tuple(copies) for variant, copies in found.items()}


def _variant(dnns: Sequence[Dnn], member: MergedMember, where: str) -> Profile:
    dnn = next((one for one in dnns if one.name == member.dnn), None)
    if dnn is None:
        raise InputError(f"{where}: unknown DNN {member.dnn!r}; the problem has {[one.name for one in dnns]}")
    if member.variant is not None:
        return dnn.variant(member.variant)
    if len(dnn.variants) > 1:
        names = [variant.name for variant in dnn.variants]
        raise InputError(f"{where}: variant: missing; {dnn.name} has {names}, name one")
    return dnn.variants[0]


def _refuse_unlike(
    one: tuple[MergedMember, Profile], other: tuple[MergedMember, Profile], blocks: int, where: str
) -> None:
    """Refuse blocks that cannot be one copy, by their layers, their bytes and what travels between them."""
    shapes = []
    for member, profile in (one, other):
        begin, end = member.first_block, member.first_block + blocks
        run = profile.blocks[begin:end]
        parts = [(len(block.layers), block.parameter_bytes, block.activation_bytes) for block in run]
        shapes.append((parts, list(profile.cut_bytes[begin : end - 1])))
    for offset, (mine, theirs) in enumerate(zip(shapes[0][0], shapes[1][0], strict=True)):
        if mine != theirs:
            raise InputError(
                f"{where}: block {one[0].first_block + offset} of {one[0].dnn} and block "
                f"{other[0].first_block + offset} of {other[0].dnn} are unlike: expected equal (layers, bytes of "
                f"parameters, of activations), got {mine} and {theirs}; merge blocks of equal shapes"
            )
    if shapes[0][1] != shapes[1][1]:
        raise InputError(
            f"{where}: what travels between the blocks of {one[0].dnn} and {other[0].dnn} is unlike: got "
            f"{shapes[0][1]} and {shapes[1][1]} bytes; merge blocks of equal shapes"
        )


def with_largest_latencies(dnns: Sequence[Dnn], copies: Mapping[Variant, Sequence[Copy | None]]) -> tuple[Dnn, ...]:
    """Return the DNNs with every merged block at the largest latency that any of its members has.

    Tables of one share of a device get the batch sizes of all variants with merged blocks, up to their own largest.
    """
    tables: dict[tuple[str, Share], list[tuple[Sequence[Copy | None], LatencyTable]]] = {}
    for dnn in dnns:
        for variant in dnn.variants:
            if (dnn.name, variant.name) in copies:
                for table in variant.tables:
                    entry = copies[dnn.name, variant.name], table
                    tables.setdefault((table.device, table.share), []).append(entry)
    largest = {place: _largest_us(found) for place, found in tables.items()}

    def levelled(dnn: Dnn, variant: Profile) -> Profile:
        own = copies.get((dnn.name, variant.name))
        if own is None:
            return variant
        return replace(variant, tables=tuple(_levelled(t, own, largest[t.device, t.share]) for t in variant.tables))

    return tuple(replace(dnn, variants=tuple(levelled(dnn, variant) for variant in dnn.variants)) for dnn in dnns)


def _largest_us(tables: Sequence[tuple[Sequence[Copy | None], LatencyTable]]) -> dict[int, dict[Copy, int]]:
    """Return ``[batch][copy]``, the largest latency (µs) in some tables of one place."""
    found: dict[int, dict[Copy, int]] = {batch: {} for _, table in tables for batch in table.batches}
    for batch, row in found.items():
        for copies, table in tables:
            if batch <= table.batches[-1]:
                for copy, latency_us in zip(copies, table.block_latency_us(batch), strict=True):
                    if copy is not None:
                        row[copy] = max(latency_us, row.get(copy, 0))
    return found


def _levelled(
    table: LatencyTable, copies: Sequence[Copy | None], largest: Mapping[int, Mapping[Copy, int]]
) -> LatencyTable:
    batches = tuple(batch for batch in sorted(largest) if batch <= table.batches[-1])
    rows = tuple(
        tuple(
            own if copy is None else largest[batch][copy]
            for copy, own in zip(copies, table.block_latency_us(batch), strict=True)
        )
        for batch in batches
    )
    at = [bisect_left(table.batches, batch) for batch in batches]
    return replace(
        table,
        batches=batches,
        latency_us=rows,
        spread=table.spread and tuple(table.spread[row] for row in at),
        peak_memory_bytes=table.peak_memory_bytes and tuple(table.peak_memory_bytes[row] for row in at),
    )
