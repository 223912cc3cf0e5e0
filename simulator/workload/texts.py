"""Traces as the text of each schema, for `read_trace` and for other people's tools to read."""

from itertools import chain

import numpy as np

from planner.files.names import cell
from planner.model import InputError
from simulator.workload.arrivals import ArrivalsUs
from simulator.workload.maf19 import DAY, NAME_COLUMNS
from simulator.workload.maf21 import MAF21_COLUMNS
from simulator.workload.trace import Trace


def maf21_text(trace: Trace) -> str:
    """Return a trace in the MAF'21 schema, times in µs digits, durations 0 (an invocation ends when it starts).

    >>> calls = Trace(np.array([0.0, 61.5]), np.array([0, 0], np.int32), (("a", "f"),), "example")
    >>> print(maf21_text(calls))
    app,func,end_timestamp,duration
    a,f,0.000000,0.000
    a,f,61.500000,0.000
    <BLANKLINE>
    """
    names = [f"{_quoted(app)},{_quoted(function)}" for app, function in trace.functions]
    rows = zip(trace.function.tolist(), trace.times_s.tolist(), strict=True)
    return "\n".join([",".join(MAF21_COLUMNS), *(f"{names[code]},{time_s:.6f},0.000" for code, time_s in rows), ""])


def _quoted(name: str) -> str:
    """Return a name as a cell of a CSV file."""
    text = str(cell(name))
    return '"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text


def maf19_text(trace: Trace) -> str:
    """Return a trace of at most one day in the MAF'19 schema: calls per function and minute.

    Owner and trigger, which a trace does not know, are written as ``owner`` and ``http``.
    """
    minute = (trace.times_s // 60).astype(np.int64)
    if minute.max(initial=0) >= DAY:
        raise InputError(f"{trace.source}: a MAF'19 file holds one day; the trace lasts {trace.times_s[-1]:.0f} s")
    for name in chain.from_iterable(trace.functions):
        if "," in name or '"' in name:
            raise InputError(
                f"{trace.source}: {name!r} has a comma or a quotation mark, which names in MAF'19 files "
                "cannot have; write it in the MAF'21 schema"
            )
    counts = np.zeros((len(trace.functions), DAY), dtype=np.int64)
    np.add.at(counts, (trace.function, minute), 1)
    header = ",".join([*NAME_COLUMNS, *map(str, range(1, DAY + 1))])
    rows = (
        f"owner,{cell(app)},{cell(function)},http," + ",".join(map(str, row))
        for (app, function), row in zip(trace.functions, counts.tolist(), strict=True)
    )
    return "\n".join([header, *rows, ""])


def arrivals_text(arrivals_us: ArrivalsUs) -> str:
    r"""Return arrivals as a plain list, one integer (µs) a line after the header ``arrival_us``.

    >>> arrivals_text(np.array([0, 250]))
    'arrival_us\n0\n250\n'
    """
    return "\n".join(["arrival_us", *map(str, arrivals_us.tolist()), ""])
