"""Rows that put the segments of a pool on devices: by sums of fractions, or by layouts where sums do not decide.

A *pool* is what may lie on a device together: the stages of one position of one DNN, or, with shared devices, all
stages (`planner.model.placing.pool_of`). With s_σ segments of kind σ in use, and D_l devices of maximal layout l,

    sums       sum over σ of fraction_σ · s_σ <= N                   N whole devices      ``whole[pool]``
    layouts    s_σ <= sum over l of count(l, σ) · D_l   for every σ  ``segments[pool,σ]``, ``layout[pool,l]``

The first stands where it says the same as the second (`planner.model.packing.sums_decide`); without integers where
every kind fills a device alone, for then the layouts of one kind are the best. Only maximal layouts are needed, for
segments may stay empty. Sums are written in units of 1/lcm, so that every coefficient is an integer; where all segments
are whole devices they stand for themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, lcm

from planner.model import DeviceType
from planner.model.packing import Geometry, Layout, geometries, maximal_layouts, sums_decide
from planner.model.placing import Layouts, chosen_layouts
from planner.model.segments import Kind, share_text
from planner.planning.programme.linear import LinearModel

Terms = list[tuple[int, float]]


@dataclass
class PoolColumns:
    """What holds the segments of one geometry in a pool: the column of whole devices, or those of layouts.

    ``rows`` has the row of every kind under layouts. ``devices`` are the terms that count devices.
    """

    geometry: Geometry
    whole: int | None = None
    layouts: dict[Layout, int] = field(default_factory=dict)
    rows: dict[Kind, int] = field(default_factory=dict)
    devices: Terms = field(default_factory=list)

    def start(self, segments: Mapping[Kind, int], given: Sequence[Layouts] | None = None) -> dict[int, float]:
        """Return the values of integer columns for so many segments, on devices as given where sums do not decide."""
        if self.whole is not None:
            widths = zip(self.geometry.kinds, self.geometry.widths, strict=True)
            filled = sum(width * segments.get(kind, 0) for kind, width in widths)
            return {self.whole: float(ceil(Fraction(filled, self.geometry.slots)))}
        values = dict.fromkeys(self.layouts.values(), 0.0)
        for layout, devices in chosen_layouts(self.geometry, segments, given) if values else ():
            within = (all(n <= most for n, most in zip(layout, other, strict=True)) for other in self.layouts)
            values[list(self.layouts.values())[list(within).index(True)]] += devices
        return values


def add_pool(
    model: LinearModel, name: str, device: DeviceType, segments: Mapping[Kind, Sequence[tuple[int, Fraction]]]
) -> list[PoolColumns]:
    """Add the rows of a pool on whole devices, and return its columns, geometry by geometry.

    Parameters
    ----------
    segments
        Terms (column, segments per unit) that sum to the segments in use of each kind.
    """
    found = []
    for geometry in geometries(device, segments):
        mine = {kind: segments[kind] for kind in geometry.kinds}
        by_sums = sums_decide(geometry)
        columns = _by_sum(model, name, device, geometry, mine) if by_sums else PoolColumns(geometry)
        if not by_sums:
            floats = {kind: [(column, float(units)) for column, units in terms] for kind, terms in mine.items()}
            _add_layouts(model, name, device, columns, floats, integer=True)
        found.append(columns)
    return found


def add_relaxed_pool(
    model: LinearModel, device: DeviceType, segments: Mapping[Kind, Sequence[tuple[int, float]]]
) -> list[PoolColumns]:
    """Add the rows of all pools of a type together on fractions of devices, and return their columns."""
    found = []
    for geometry in geometries(device, segments):
        columns = PoolColumns(geometry)
        if geometry.fills_alone:
            for kind, width in zip(geometry.kinds, geometry.widths, strict=True):
                per_device = geometry.slots // width
                columns.devices += [(column, units / per_device) for column, units in segments[kind]]
        else:
            _add_layouts(model, device.name, device, columns, segments, integer=False)
        found.append(columns)
    return found


def _by_sum(
    model: LinearModel, name: str, device: DeviceType, geometry: Geometry,
    segments: Mapping[Kind, Sequence[tuple[int, Fraction]]],
) -> PoolColumns:  # fmt: skip
    members = [
        (column, units * Fraction(width, geometry.slots))
        for kind, width in zip(geometry.kinds, geometry.widths, strict=True)
        for column, units in segments[kind]
    ]
    unit = lcm(*(filled.denominator for _, filled in members))
    if unit == 1:
        return PoolColumns(geometry, devices=[(column, float(filled)) for column, filled in members])
    whole = model.add_column(f"whole[{name}]", upper=device.count, integer=True)
    model.add_row(f"whole[{name}]", [*((c, float(unit * n)) for c, n in members), (whole, -unit)], upper=0.0)
    return PoolColumns(geometry, whole, devices=[(whole, 1.0)])


def _add_layouts(
    model: LinearModel, name: str, device: DeviceType, columns: PoolColumns,
    segments: Mapping[Kind, Sequence[tuple[int, float]]], *, integer: bool,
) -> None:  # fmt: skip
    geometry = columns.geometry
    for layout in maximal_layouts(geometry):
        held = "+".join(f"{n}×{share_text(kind)}" for kind, n in zip(geometry.kinds, layout, strict=True) if n)
        columns.layouts[layout] = model.add_column(f"layout[{name},{held}]", upper=device.count, integer=integer)
    for number, kind in enumerate(geometry.kinds):
        terms = [(column, -float(layout[number])) for layout, column in columns.layouts.items() if layout[number]]
        row = f"segments[{name},{share_text(kind)}]"
        columns.rows[kind] = model.add_row(row, [*summed(segments[kind]), *terms], upper=0.0)
    columns.devices = [(column, 1.0) for column in columns.layouts.values()]


def summed(terms: Iterable[tuple[int, float]]) -> Terms:
    """Return terms with every column once."""
    total: dict[int, float] = {}
    for column, coefficient in terms:
        total[column] = total.get(column, 0.0) + coefficient
    return list(total.items())
