"""Clusters that nobody answers for are refused in seconds, and those of this machine are its own."""

import socket
import time
from typing import Any

import pytest

from planner.model import InputError
from simulator.ray_cluster import join, require_reachable


def test_an_address_where_nobody_answers_is_refused_in_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin_s = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:99999999"):
        with pytest.raises(InputError, match="nobody answers there .*ray start --head"):
            require_reachable(address)
    assert time.monotonic() - begin_s < 10


class FakeRay:
    """Stands for ray: remembers how it was started."""

    def __init__(self) -> None:
        self.started: dict[str, Any] = {}

    def init(self, **options: Any) -> None:
        self.started = options


def test_a_cluster_of_this_machine_listens_on_loopback() -> None:
    ray = FakeRay()
    join(ray, None)
    assert ray.started["_node_ip_address"] == "127.0.0.1"
    join(ray, "auto")
    assert ray.started["address"] == "auto"
