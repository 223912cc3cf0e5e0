"""What the methods of this wing can take: DNNs with devices of their own, on shares that are fractions of a device."""

from planner.model import Problem
from planner.model.packing import geometries, sums_decide


def by_fractions(problem: Problem) -> bool:
    """Tell whether a problem's slices may be counted as fractions of devices that each DNN has for itself.

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((4000,),), Provenance("measured", "by hand"))
    >>> dnns = (Dnn("toy", 20_000, (Profile("toy", (Block(("a",)),), (), (table,)),)),)
    >>> def on(**changes):
    ...     return by_fractions(Problem(Cluster((DeviceType("L4", 2, **changes),), Network(10)), dnns))
    >>> on(shares=(1, 2, 3, 4)), on(shares=(2, 3, 5)), on(cores=4)
    (True, False, False)
    """
    types = [device for device in problem.cluster.device_types if device.count]
    fractions = all(
        not device.names and all(sums_decide(geometry) for geometry in geometries(device, device.shares))
        for device in types
    )
    alone = problem.options.device_sharing == "own" or all(device.shares == (1,) for device in types)
    return fractions and alone
