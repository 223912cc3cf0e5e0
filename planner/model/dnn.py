"""DNNs to serve."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen

from planner.model.applications import Percent, check_accuracy
from planner.model.cluster import Quantity
from planner.model.errors import InputError
from planner.model.profile import MOST_US, Profile
from planner.model.record import LATER, record


@record
class Dnn:
    """A DNN to serve: any of its ``variants`` may answer a request, within ``slo_us`` end to end.

    ``weight`` is its share of the load: a plan is worth min over DNNs of throughput / weight.
    ``np_throughput_rps`` is X0, NP's throughput planned without batch building, which the batch-building
    time rests on; None lets the planner compute it. 0 means that NP cannot serve the DNN.
    ``rate_rps`` is the throughput to reach under the objectives that serve given rates. ``accuracy`` is that of each
    variant (percent), by name.
    """

    name: Annotated[str, MinLen(1)]
    slo_us: Annotated[float, Gt(0), Le(MOST_US)]
    variants: Annotated[tuple[Profile, ...], MinLen(1)]
    weight: Quantity = 1.0
    np_throughput_rps: Annotated[float, Ge(0)] | None = None
    rate_rps: Quantity | None = None
    accuracy: Mapping[str, Percent] = field(default_factory=dict, metadata=LATER)

    def __post_init__(self) -> None:
        """Refuse two variants of one name, and accuracies of others."""
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise InputError(f"variants of {self.name}: names must differ, got {names}")
        check_accuracy(self.name, self.accuracy, names)

    def variant(self, name: str) -> Profile:
        """Return a variant by name; raises InputError if there is none."""
        for profile in self.variants:
            if profile.name == name:
                return profile
        raise InputError(f"{self.name} has no variant {name!r}; it has {[v.name for v in self.variants]}")
