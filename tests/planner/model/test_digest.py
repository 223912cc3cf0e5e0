from dataclasses import replace

from planner.model import Cluster, DeviceType, Network, digest


def test_equal_objects_have_equal_digests() -> None:
    assert digest(Cluster((DeviceType("L4", 1),), Network(10))) == digest(
        Cluster((DeviceType("L4", 1),), Network(10.0))
    )


def test_any_change_changes_the_digest() -> None:
    cluster = Cluster((DeviceType("L4", 1),), Network(10.0))
    for other in (cluster.with_counts({"L4": 2}), replace(cluster, network=Network(10.5))):
        assert digest(other) != digest(cluster)
