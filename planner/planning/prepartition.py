"""Prepartition: contiguous blocks of layers, the units that plans divide (PPipe, ATC'25, section 5.1).

Given layers 0..L-1 with latencies l_g[i] on every device type g and a size in bytes of the cut after each layer, choose
N blocks, each [i, j), that minimise the bytes summed over the N - 1 cuts, subject on *every* g to

    lower / N <= sum of l_g over the block / sum of l_g over all layers <= upper / N

It is a shortest path over (block, layer). Latencies are not negative, so the layers at which a block that ends at j may
begin are a range, and the programme

    best[n, j] = min over i in range(j) of best[n - 1, i] + bytes of the cut before i

takes N · L minima over ranges, each found from two of ranges whose lengths are powers of two, so that a hundred blocks
of ten thousand layers take a moment. Bounds are relaxed along `RELAXATIONS` until they can be met.

Deviation: the last of them, (0, N), is not PPipe's; it admits everything, for models whose one layer is most of them.
A model of at most N layers has one block per layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from planner.model import InputError
from planner.planning.arrays import Floats, Integers

# Lower and upper bounds of a block's share of the latency, as multiples of 1 / N.
RELAXATIONS = ((0.7, 1.3), (0.5, 1.5), (0.5, 2.0), (0.5, 2.5), (0.5, 3.0), (0.5, 3.5), (0.5, 4.0), (0.4, 4.0))
EVENNESS = 1e-6
ROUNDING = 1e-12  # of a model's latency


@dataclass(frozen=True)
class Blocks:
    """Block n is layers [starts[n], starts[n + 1]), the last one to the end.

    On every device, each holds between ``lower`` and ``upper`` times 1/N of the latency. ``cut_bytes`` is the sum over
    the cuts between blocks, per request.
    """

    starts: tuple[int, ...]
    lower: float
    upper: float
    cut_bytes: int


def prepartition(latency_us: Sequence[Sequence[float]], cut_bytes: Sequence[int], blocks: int = 10) -> Blocks:
    """Return the blocks with the fewest bytes between them, within the tightest bounds that can be met.

    Parameters
    ----------
    latency_us
        ``latency_us[device][layer]``, of a batch of 1.
    cut_bytes
        ``cut_bytes[i]`` is what a request sends over the cut between layers i and i + 1.
    blocks
        N.

    Raises
    ------
    InputError
        The inputs do not fit each other.

    Examples
    --------
    Of the two cuts that balance six equal layers to within 30 %, the cheaper one:

    >>> prepartition([[1.0] * 6], [9, 9, 5, 9, 9], blocks=2)
    Blocks(starts=(0, 3), lower=0.7, upper=1.3, cut_bytes=5)
    """
    shares = _shares_before(latency_us, cut_bytes, blocks)
    if len(cut_bytes) < blocks:
        return _blocks(range(len(cut_bytes) + 1), shares, cut_bytes)
    for lower, upper in (*RELAXATIONS, (0.0, float(blocks))):
        starts = _fewest_bytes(shares, cut_bytes, blocks, lower / blocks, upper / blocks)
        if starts is not None:
            return Blocks(starts, lower, upper, _total_bytes(starts, cut_bytes))
    raise AssertionError("bounds of 0 and N admit every partition")


def even_runtime(latency_us: Sequence[Sequence[float]], cut_bytes: Sequence[int], blocks: int = 10) -> Blocks:
    """Return the blocks of the most even latency, whatever the bytes between them.

    It is the second way to block that PPipe's ablation names: the bounds 1 - e and 1 + e are brought together, to
    `EVENNESS`, as far as they can be met on every device. Parameters and errors are those of `prepartition`.

    Examples
    --------
    >>> even_runtime([[2.0, 1.0, 1.0, 1.0]], [9, 5, 1], blocks=2).starts
    (0, 2)
    """
    shares = _shares_before(latency_us, cut_bytes, blocks)
    if len(cut_bytes) < blocks:
        return _blocks(range(len(cut_bytes) + 1), shares, cut_bytes)
    low, high = 0.0, float(blocks)
    best = _fewest_bytes(shares, cut_bytes, blocks, 0.0, 1.0)
    while high - low > EVENNESS:
        spread = (low + high) / 2
        starts = _fewest_bytes(shares, cut_bytes, blocks, (1 - spread) / blocks, (1 + spread) / blocks)
        if starts is None:
            low = spread
        else:
            high, best = spread, starts
    assert best is not None
    return _blocks(best, shares, cut_bytes)


def _shares_before(latency_us: Sequence[Sequence[float]], cut_bytes: Sequence[int], blocks: int) -> Floats:
    """Return ``[device, layer]``, the share of the device's latency that the layers before ``layer`` take."""
    if blocks < 1:
        raise InputError(f"blocks: expected at least 1, got {blocks}")
    if not latency_us:
        raise InputError("latencies: expected those of at least one device, got none")
    lengths = sorted({len(row) for row in latency_us} | {len(cut_bytes) + 1})
    if len(lengths) > 1:
        raise InputError(f"latencies and cuts are for different numbers of layers: {lengths}")
    latencies = np.array(latency_us, dtype=np.float64)
    totals = latencies.sum(axis=1, keepdims=True)
    if not np.isfinite(latencies).all() or (latencies < 0).any() or (totals <= 0).any():
        raise InputError("latencies: expected numbers >= 0 with a sum above 0 on every device")
    return np.concatenate([np.zeros_like(totals), (latencies / totals).cumsum(axis=1)], axis=1)


def _fewest_bytes(
    shares: Floats, cut_bytes: Sequence[int], blocks: int, lower: float, upper: float
) -> tuple[int, ...] | None:
    """Return where blocks begin, or None where the bounds cannot be met."""
    layers = shares.shape[1] - 1
    before = np.array([0, *cut_bytes])  # bytes of the cut before each layer
    ends = np.arange(layers + 1)
    first = np.max([np.searchsorted(row, row - upper - ROUNDING) for row in shares], axis=0)
    last = np.min([np.searchsorted(row, row - lower + ROUNDING, side="right") for row in shares], axis=0)
    last = np.minimum(last, ends)  # a block has at least one layer; the range is [first, last)
    possible = ends[first < last]
    best = np.full(layers + 1, inf)
    best[0] = 0.0
    choice = np.zeros((blocks + 1, layers + 1), dtype=np.int64)
    for block in range(1, blocks + 1):
        cost = best[:-1] + before
        begin = leftmost_minima(cost, first[possible], last[possible])
        best = np.full(layers + 1, inf)
        best[possible], choice[block, possible] = cost[begin], begin
    if best[layers] == inf:
        return None
    starts, end = [], layers
    for block in range(blocks, 0, -1):
        end = int(choice[block, end])
        starts.append(end)
    return tuple(reversed(starts))


def leftmost_minima(cost: Floats, first: Integers, last: Integers) -> Integers:
    """Return where ``cost`` is least in each range [first, last), which is not empty: the first of equal places.

    >>> leftmost_minima(np.array([3.0, 1.0, 2.0, 1.0]), np.array([0, 0, 2]), np.array([1, 4, 3])).tolist()
    [0, 1, 2]
    """
    found = np.empty_like(first)
    length, longest = last - first, int((last - first).max(initial=0))
    least, width = np.arange(len(cost)), 1  # where the least is of ``width`` places from each on
    while width <= longest:
        these = np.flatnonzero((width <= length) & (length < 2 * width))
        found[these] = _lesser(cost, least[first[these]], least[last[these] - width])
        least, width = _lesser(cost, least[:-width], least[width:]), 2 * width
    return found


def _lesser(cost: Floats, left: Integers, right: Integers) -> Integers:
    lesser: Integers = np.where(cost[left] <= cost[right], left, right)
    return lesser


def _blocks(starts: Sequence[int], shares: Floats, cut_bytes: Sequence[int]) -> Blocks:
    """Return blocks with the bounds that they reach."""
    taken = np.diff(shares[:, [*starts, shares.shape[1] - 1]], axis=1) * len(starts)
    return Blocks(tuple(starts), float(taken.min()), float(taken.max()), _total_bytes(starts, cut_bytes))


def _total_bytes(starts: Sequence[int], cut_bytes: Sequence[int]) -> int:
    return sum(int(cut_bytes[start - 1]) for start in starts[1:])
