"""Names of published plan files: device counts and weights of the DNNs stand nowhere else.

``DNNS[_weights]_TYPES_COUNTS_bw-gbps-B_sla-multiplier-M_SCHEDULER.json``, the items of a list joined by ``-``.
"""

import re
from dataclasses import dataclass

from planner.model import InputError
from planner.model.plan import Scheduler

SCHEDULERS: dict[str, Scheduler] = {"v4": "pipelines", "bl": "np", "dart-r": "dart-r"}

_NUMBERS = r"[\d.]+(?:-[\d.]+)*"
_AFTER_DNNS = re.compile(
    rf"(?:_(?P<weights>{_NUMBERS}))?_(?P<types>[^_]+)_(?P<counts>\d+(?:-\d+)*)"
    rf"_bw-gbps-(?P<bandwidth>[\d.]+)_sla-multiplier-(?P<multiplier>[\d.]+)_(?P<scheduler>{'|'.join(SCHEDULERS)})\.json"
)


@dataclass(frozen=True)
class FileName:
    """What the name of a published plan file says; one weight per DNN and one count per device type."""

    dnns: tuple[str, ...]
    weights: tuple[float, ...]
    device_types: tuple[str, ...]
    counts: tuple[int, ...]
    bandwidth_gbps: float
    slo_multiplier: float
    scheduler: Scheduler

    @classmethod
    def parse(cls, name: str, dnns: tuple[str, ...]) -> "FileName":
        """Read a file name; the DNNs of the file tell where their names, which hold ``-`` and ``_``, end.

        Raises
        ------
        InputError
            The name is of another form.

        Examples
        --------
        >>> name = FileName.parse("a_2-b_0.3-0.7_L4-T4_25-75_bw-gbps-10_sla-multiplier-5_v4.json", ("a_2", "b"))
        >>> name.weights, name.counts, name.scheduler
        ((0.3, 0.7), (25, 75), 'pipelines')
        >>> str(name)
        'a_2-b_0.3-0.7_L4-T4_25-75_bw-gbps-10_sla-multiplier-5_v4.json'
        """
        prefix = "-".join(dnns)
        found = _AFTER_DNNS.fullmatch(name[len(prefix) :]) if name.startswith(prefix) else None
        if found is None:
            raise InputError(
                f"{name}: not the name of a published plan of {prefix}; expected "
                "DNNS[_weights]_TYPES_COUNTS_bw-gbps-B_sla-multiplier-M_SCHEDULER.json "
                f"with SCHEDULER one of {list(SCHEDULERS)}, for the device counts and weights stand only there"
            )
        weights = tuple(float(w) for w in found["weights"].split("-")) if found["weights"] else (1.0,) * len(dnns)
        counts = tuple(int(count) for count in found["counts"].split("-"))
        types = tuple(found["types"].split("-"))
        if len(weights) != len(dnns) or len(counts) != len(types):
            raise InputError(
                f"{name}: expected a weight per DNN ({len(dnns)}) and a count per device type ({len(types)}), "
                f"got {len(weights)} weights and {len(counts)} counts"
            )
        return cls(
            dnns=dnns,
            weights=weights,
            device_types=types,
            counts=counts,
            bandwidth_gbps=float(found["bandwidth"]),
            slo_multiplier=float(found["multiplier"]),
            scheduler=SCHEDULERS[found["scheduler"]],
        )

    def __str__(self) -> str:
        """Return the file name; weights of 1 are left out, as published."""
        weights = "" if set(self.weights) == {1.0} else "_" + "-".join(f"{weight:g}" for weight in self.weights)
        suffix = next(text for text, scheduler in SCHEDULERS.items() if scheduler == self.scheduler)
        return (
            f"{'-'.join(self.dnns)}{weights}_{'-'.join(self.device_types)}_{'-'.join(map(str, self.counts))}"
            f"_bw-gbps-{self.bandwidth_gbps:g}_sla-multiplier-{self.slo_multiplier:g}_{suffix}.json"
        )
