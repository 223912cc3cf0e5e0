import pytest

from planner.model import Cluster, DeviceType, InputError, Link, Network


def test_links_override_the_default_in_their_direction_only() -> None:
    network = Network(10.0, 5.0, (Link("L4", "Pi", 1.0, 300.0),))
    assert network.wire_us("L4", "Pi", 1000) == 8.0  # 8,000 bits at 1 Gbit/s
    assert network.wire_us("Pi", "L4", 1000) == 0.8
    assert network.link("L4", "Pi").hop_latency_us == 300.0
    assert network.link("Pi", "L4").hop_latency_us == 5.0


def test_counts_can_be_changed_by_name() -> None:
    cluster = Cluster((DeviceType("L4", 25), DeviceType("T4", 75)), Network(10.0))
    assert [d.count for d in cluster.with_counts({"T4": 3}).device_types] == [25, 3]


@pytest.mark.parametrize(
    ("types", "links", "message"),
    [
        ((DeviceType("L4", 0),), (), "zero devices"),
        ((DeviceType("L4", 1), DeviceType("L4", 2)), (), "names must differ"),
        ((DeviceType("L4", 1),), (Link("L4", "T4", 1.0),), "unknown device type 'T4'"),
    ],
)
def test_impossible_clusters_are_refused(types: tuple[DeviceType, ...], links: tuple[Link, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cluster(types, Network(10.0, 0.0, links))


def test_an_unknown_device_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"unknown device type 'H100'; the cluster has \['L4'\]"):
        Cluster((DeviceType("L4", 1),), Network(10.0)).device("H100")


def test_shares_come_in_order() -> None:
    with pytest.raises(InputError, match="increasing"):
        DeviceType("L4", 1, shares=(2, 1))
