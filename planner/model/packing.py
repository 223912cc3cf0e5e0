"""Which segments fit on one device together: layouts, and where sums of fractions say the same.

A *layout* is a multiset of segments that one device can hold at once; it is *maximal* if no segment can be added.
Segments fit on D devices if D maximal layouts contain them.

*Sums decide* for kinds of which each fills a device alone and lies anywhere, if any numbers of them fit on as many
devices as their fractions sum to, rounded up. They do for {1/2, 1/3, 1/4}, and for kinds that divide each other; not
for {1/2, 1/3, 1/5}: 1/2 + 2/3 + 4/5 = 1.967, and no two devices hold these. It is enough to look at fewer segments of
each kind than fill a device, for full devices can be taken away first.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise, product
from math import prod

from planner.model.cluster import DeviceType
from planner.model.errors import InputError
from planner.model.segments import Kind, Share, Starts, kind_of, share_text

Layout = tuple[int, ...]  # numbers of segments, one per kind of a geometry
REMAINDERS = 2_000  # up to so many are looked at to find whether sums decide
MOST_LAYOUTS = 20_000
FEW_STARTS = 2  # places of a segment, up to which it takes the last that there are


@dataclass(frozen=True)
class Geometry:
    """Kinds of segments that divide a device the same way: ``widths`` on ``slots``, from ``starts`` on.

    ``memory`` is what a segment of each kind holds (bytes), ``memory_limit`` what a device does; both 0 where they are
    no limit. ``allowed`` lists the layouts that the device knows, nothing where it knows all that fit.
    """

    slots: int
    kinds: tuple[Kind, ...]
    widths: tuple[int, ...]
    starts: tuple[Starts, ...]
    memory: tuple[int, ...]
    memory_limit: int
    allowed: tuple[Layout, ...]

    @cached_property
    def free(self) -> bool:
        """Whether every segment may lie anywhere."""
        return all(len(starts) == self.slots - w + 1 for starts, w in zip(self.starts, self.widths, strict=True))

    @cached_property
    def anywhere(self) -> bool:
        """Whether every segment may lie anywhere, and slots are all that limits."""
        return self.free and not self.memory_limit and not self.allowed

    @property
    def fills_alone(self) -> bool:
        """Whether segments of each kind alone fill a device, so that only fractions count where these may be cut."""
        return self.anywhere and all(self.slots % width == 0 for width in self.widths)


def geometries(device: DeviceType, kinds: Iterable[Kind]) -> tuple[Geometry, ...]:
    """Return the geometries of the kinds given: that of 1/k, that of the named ones, either where there are such.

    >>> [geometry.kinds for geometry in geometries(DeviceType("A", 1, shares=(1, 2), cores=4), [2, "1 core", 1])]
    [(1, 2), ('1 core',)]
    """
    wanted = set(kinds)
    found = []
    for group in ([k for k in device.shares if k in wanted], [name for name in device.names if name in wanted]):
        if not group:
            continue
        divided = device.division(group[0])
        memory = [0] * len(group) if isinstance(group[0], int) else [_memory(device, kind) for kind in group]
        limited = device.memory_bytes is not None and any(
            held * divided.slots > device.memory_bytes * divided.widths[kind]
            for held, kind in zip(memory, group, strict=True)
        )
        named = isinstance(group[0], str)
        allowed = [tuple(layout.get(str(kind), 0) for kind in group) for layout in device.layouts] if named else []
        found.append(
            Geometry(
                divided.slots,
                tuple(group),
                tuple(divided.widths[kind] for kind in group),
                tuple(divided.starts[kind] for kind in group),
                tuple(memory) if limited else (0,) * len(group),
                device.memory_bytes or 0 if limited else 0,
                tuple(allowed),
            )
        )
    return tuple(found)


def _memory(device: DeviceType, kind: Kind) -> int:
    return int(device.segment_memory_bytes(kind) or 0)


@lru_cache(maxsize=1000)
def sums_decide(geometry: Geometry) -> bool:
    """Tell whether any segments fit on as many devices as their fractions sum to, rounded up.

    >>> halves_to_fifths = DeviceType("A", 1, shares=(2, 3, 5))
    >>> sums_decide(geometries(halves_to_fifths, [2, 3])[0]), sums_decide(geometries(halves_to_fifths, [2, 3, 5])[0])
    (True, False)
    """
    if not geometry.fills_alone:
        return False
    widths = sorted(geometry.widths)
    if all(larger % smaller == 0 for smaller, larger in pairwise(widths)):
        return True
    most = [geometry.slots // width for width in widths]
    if prod(most) > REMAINDERS:
        return False
    remainders = product(*(range(count) for count in most))
    return all(
        len(_fewest_bins(geometry.slots, _widths(widths, counts))) == -(-_total(widths, counts) // geometry.slots)
        for counts in remainders
    )


def _total(widths: Iterable[int], counts: Iterable[int]) -> int:
    return sum(width * count for width, count in zip(widths, counts, strict=True))


def _widths(widths: Iterable[int], counts: Iterable[int]) -> tuple[int, ...]:
    """Return the widths of single segments, the widest first."""
    return tuple(sorted((w for w, n in zip(widths, counts, strict=True) for _ in range(n)), reverse=True))


@lru_cache(maxsize=10_000)
def _fewest_bins(slots: int, widths: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return falling widths packed into the fewest devices; exact, for a dozen of them."""
    count = -(-sum(widths) // slots)
    while True:
        bins: list[list[int]] = [[] for _ in range(count)]
        if _place(slots, widths, bins):
            return tuple(tuple(held) for held in bins)
        count += 1


def _place(slots: int, widths: tuple[int, ...], bins: list[list[int]]) -> bool:
    if not widths:
        return True
    tried = set()
    for held in bins:
        used = sum(held)
        if used + widths[0] <= slots and used not in tried:
            tried.add(used)  # devices that are equally full are the same
            held.append(widths[0])
            if _place(slots, widths[1:], bins):
                return True
            held.pop()
    return False


@lru_cache(maxsize=1000)
def maximal_layouts(geometry: Geometry) -> tuple[Layout, ...]:
    """Return the layouts to which no segment can be added, none of which is contained in another.

    Raises
    ------
    InputError
        There are more than `MOST_LAYOUTS` to look at.

    Examples
    --------
    >>> maximal_layouts(geometries(DeviceType("A", 1, mig="a30-24gb"), ["1g.6gb", "2g.12gb"])[0])
    ((0, 2), (2, 1), (4, 0))
    """
    if geometry.anywhere:
        least = min(geometry.widths)
        full = (one for one in _by_width(geometry) if geometry.slots - _total(geometry.widths, one) < least)
        return tuple(sorted(full))
    found = set(_by_width(geometry) if geometry.free else _by_slot(geometry)[0])
    if geometry.memory_limit:
        found = {one for one in found if _total(geometry.memory, one) <= geometry.memory_limit}
    if geometry.allowed:
        found = {one for one in found if any(_within(one, other) for other in geometry.allowed)}
    return tuple(sorted(one for one in found if any(one) and not any(more in found for more in _one_more(one))))


def _within(layout: Layout, other: Layout) -> bool:
    return all(one <= most for one, most in zip(layout, other, strict=True))


def _one_more(layout: Layout) -> Iterator[Layout]:
    for kind, count in enumerate(layout):
        yield (*layout[:kind], count + 1, *layout[kind + 1 :])


def _by_width(geometry: Geometry) -> list[Layout]:
    """Return the layouts that fit the slots; where these are all that limits, with as many of the last kind as do."""
    found: list[Layout] = [()]
    for number, width in enumerate(geometry.widths):
        longer: list[Layout] = []
        for layout in found:
            most = (geometry.slots - _total(geometry.widths[:number], layout)) // width
            last = number == len(geometry.widths) - 1
            longer += ((*layout, count) for count in range(most if last and geometry.anywhere else 0, most + 1))
            _expect_few(geometry, longer)
        found = longer
    return found


@lru_cache(maxsize=1000)
def _by_slot(geometry: Geometry) -> tuple[frozenset[Layout], ...]:
    """Return, for every slot and the end, the layouts of the slots from there on."""
    found = [frozenset([(0,) * len(geometry.kinds)])]  # from the end to the slot
    for slot in reversed(range(geometry.slots)):
        here = set(found[-1])
        for kind, (width, starts) in enumerate(zip(geometry.widths, geometry.starts, strict=True)):
            if slot in starts:
                here |= {(*rest[:kind], rest[kind] + 1, *rest[kind + 1 :]) for rest in found[-width]}
        _expect_few(geometry, here)
        found.append(frozenset(here))
    return tuple(reversed(found))


def _expect_few(geometry: Geometry, layouts: Collection[Layout]) -> None:
    if len(layouts) > MOST_LAYOUTS:
        raise InputError(
            f"segments {', '.join(map(share_text, geometry.kinds))}: more than {MOST_LAYOUTS} ways to divide a device; "
            "offer fewer of them, or such that divide each other"
        )


def arranged(geometry: Geometry, layout: Layout) -> tuple[tuple[int, int], ...]:
    """Return (kind, first slot) of every segment of a layout on a device, the widest first; kinds are indices.

    >>> geometry = geometries(DeviceType("A", 1, mig="a100-80gb"), ["1g.10gb", "2g.20gb", "3g.40gb"])[0]
    >>> arranged(geometry, (2, 1, 1))
    ((2, 4), (1, 0), (0, 2), (0, 3))
    """
    order = sorted(range(len(layout)), key=lambda kind: -geometry.widths[kind])
    found = _side_by_side(geometry, layout, order) if geometry.free else _slot_by_slot(geometry, layout, order)
    return tuple(sorted(found, key=lambda one: (order.index(one[0]), one[1])))


def _side_by_side(geometry: Geometry, layout: Layout, order: Sequence[int]) -> Iterator[tuple[int, int]]:
    slot = 0
    for kind in order:
        for _ in range(layout[kind]):
            yield kind, slot
            slot += geometry.widths[kind]
    if slot > geometry.slots:
        raise ValueError(f"layout {layout} does not fit a device: {geometry}")


def _slot_by_slot(geometry: Geometry, layout: Layout, order: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Place what leaves room for the rest; segments with few places come late: 3g of an A100 leaves its first to 4g."""
    rests, slot, left = _by_slot(geometry), 0, layout
    if layout not in rests[0]:
        raise ValueError(f"layout {layout} does not fit a device: {geometry}")
    early = [kind for kind in order if len(geometry.starts[kind]) > FEW_STARTS]
    late = [kind for kind in order if kind not in early]
    while any(left):
        for kind in (*early, None, *late):
            if kind is None:
                if left in rests[slot + 1]:
                    slot += 1
                    break
            elif left[kind] and slot in geometry.starts[kind]:
                rest = (*left[:kind], left[kind] - 1, *left[kind + 1 :])
                if rest in rests[slot + geometry.widths[kind]]:
                    yield kind, slot
                    slot, left = slot + geometry.widths[kind], rest
                    break


def packed(geometry: Geometry, counts: Mapping[Kind, int]) -> list[tuple[Layout, int]]:
    """Return layouts, and how many devices have each, that hold at least so many segments of each kind.

    They are the fewest where sums decide; elsewhere what first fit, the widest first, makes of them.

    >>> packed(geometries(DeviceType("A", 9, shares=(1, 2, 3)), [2, 3])[0], {2: 8, 3: 1})
    [((2, 0), 4), ((0, 1), 1)]
    """
    left = [counts.get(kind, 0) for kind in geometry.kinds]
    if sums_decide(geometry):
        return list(_packed_by_sums(geometry, left))
    layouts, found = maximal_layouts(geometry), []
    weights = geometry.widths
    while any(left):
        held = [tuple(min(n, most) for n, most in zip(left, layout, strict=True)) for layout in layouts]
        best = max(held, key=lambda one: (_total(weights, one), one[::-1]))
        devices = min(n // taken for n, taken in zip(left, best, strict=True) if taken)  # it stays the best for so many
        left = [n - devices * taken for n, taken in zip(left, best, strict=True)]
        found.append((best, devices))
    return found


def _packed_by_sums(geometry: Geometry, left: list[int]) -> Iterator[tuple[Layout, int]]:
    """Yield devices full of one kind, then the rest, from the smallest width on where kinds divide each other."""
    rest = []
    for number, (count, width) in enumerate(zip(left, geometry.widths, strict=True)):
        most = geometry.slots // width
        full, remainder = divmod(count, most)
        rest.append(remainder)
        if full:
            yield tuple(most if kind == number else 0 for kind in range(len(left))), full
    if not any(rest):
        return
    ordered = sorted(set(geometry.widths))
    if all(larger % smaller == 0 for smaller, larger in pairwise(ordered)):
        bins: Iterable[Iterable[int]] = _first_fit(geometry.slots, _widths(geometry.widths, rest))
    else:
        bins = _fewest_bins(geometry.slots, _widths(geometry.widths, rest))
    for held in bins:
        widths = list(held)
        yield tuple(widths.count(width) for width in geometry.widths), 1


def _first_fit(slots: int, widths: tuple[int, ...]) -> list[list[int]]:
    """Pack falling widths that divide each other: first fit is then exact."""
    bins: list[list[int]] = []
    for width in widths:
        for held in bins:
            if sum(held) + width <= slots:
                held.append(width)
                break
        else:
            bins.append([width])
    return bins


def fits(geometry: Geometry, segments: Iterable[tuple[Kind, int]]) -> bool:
    """Tell whether (kind, first slot) are segments that one device can hold at once."""
    taken: set[int] = set()
    counts = dict.fromkeys(geometry.kinds, 0)
    for kind, start in segments:
        number = geometry.kinds.index(kind)
        slots = set(range(start, start + geometry.widths[number]))
        if start not in geometry.starts[number] or slots & taken:
            return False
        taken |= slots
        counts[kind] += 1
    layout = tuple(counts.values())
    if geometry.memory_limit and _total(geometry.memory, layout) > geometry.memory_limit:
        return False
    return not geometry.allowed or any(_within(layout, other) for other in geometry.allowed)


@lru_cache(maxsize=1000)
def _most_segments(geometry: Geometry) -> int:
    return max((layout[0] for layout in maximal_layouts(geometry)), default=0)


def usable_shares(device: DeviceType) -> tuple[Share, ...]:
    """Return the shares of a device that it can be divided into, alone at least: in a layout, and within its memory.

    >>> usable_shares(DeviceType("A30", 1, mig="a30-24gb", memory_bytes=20 * 2**30))
    (1, '1g.6gb', '2g.12gb')
    """
    return tuple(share for share in device.offers if most_segments(device, kind_of(share)))


def most_segments(device: DeviceType, kind: Kind) -> int:
    """Return how many segments of one kind a device holds at most.

    >>> gpu = DeviceType("A", 1, shares=(1, 3), mig="a100-80gb")
    >>> most_segments(gpu, 3), most_segments(gpu, "3g.40gb"), most_segments(gpu, "1g.10gb")
    (3, 2, 7)
    """
    return kind if isinstance(kind, int) else _most_segments(geometries(device, [kind])[0])
