"""Clusters that nobody answers for are refused in seconds, and those of this machine are its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
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


@pytest.fixture
def web_server() -> Iterator[str]:
    """The address of something that is no Ray cluster."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    with server.accept()[0] as client:
                        client.recv(100)
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_an_address_where_something_else_answers_is_refused_in_seconds(web_server: str) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install poolpipe[ray]")
    begin_s = time.monotonic()
    with pytest.raises(InputError, match="what answers there is not the head of a Ray cluster; `ray start --head`"):
        join(ray, web_server)
    assert time.monotonic() - begin_s < 30  # seconds of it to start a process, on a busy machine


@pytest.mark.slow
def test_signals_are_heeded_while_an_address_is_asked(web_server: str) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install poolpipe[ray]")
    code = (
        "from planner.cli.app import new_app, run\n"
        "from simulator import ray_cluster\n"
        "ray_cluster.PATIENCE_S = 600\n"
        "app = new_app('test')\n"
        "@app.command()\n"
        "def main():\n"
        "    print('asking', flush=True)\n"
        f"    ray_cluster.require_reachable('{web_server}')\n"
        "run(app)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "asking\n"
        while not (children := psutil.Process(asking.pid).children()):
            time.sleep(0.05)
        time.sleep(2)  # by then it waits for an answer: a signal while a process starts may leave that behind
        asking.send_signal(signal.SIGTERM)
        assert asking.wait(30) == 143
        assert not psutil.wait_procs(children, timeout=30)[1]  # told to end, it may take a moment


LISTENS = """
import psutil, ray
from simulator.ray_cluster import join
join(ray, None)
ray.get(ray.remote(num_cpus=1)(lambda: None).remote())
me = psutil.Process()
for process in (me, *me.children(recursive=True)):
    for one in process.net_connections("inet"):
        if one.status == psutil.CONN_LISTEN:
            print(process.name(), one.laddr.ip)
ray.shutdown()
"""


@pytest.mark.slow
def test_every_process_of_a_cluster_of_this_machine_listens_on_loopback(tmp_path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install poolpipe[ray]")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", LISTENS], env=environment, capture_output=True, text=True, check=True)
    listening = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert {address.removeprefix("::ffff:") for _, address in listening} == {"127.0.0.1"}, listening
    assert not list(tmp_path.iterdir())  # no token that outlives the cluster


@pytest.mark.slow
def test_a_cluster_that_runs_is_joined() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install poolpipe[ray]")
    code = """
import ray
from ray.cluster_utils import Cluster
from simulator.ray_cluster import join
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
join(ray, cluster.address)
print(ray.get(ray.remote(lambda: "joined").remote()))
ray.shutdown()
cluster.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "joined" in done.stdout


class FakeRay:
    """Stands for a ray that is not to be kept to loopback."""

    __version__ = "9.9"
    _private = SimpleNamespace(
        ray_constants=SimpleNamespace(ENABLE_RAY_CLUSTERS_ENV_VAR="RAY_CLUSTERS", ENABLE_RAY_CLUSTER=True)
    )

    def __init__(self) -> None:
        self.running = False

    def init(self, **options: Any) -> None:
        self.running = True

    def nodes(self) -> list[dict[str, str]]:
        return [{"NodeManagerAddress": "192.0.2.7"}]

    def shutdown(self) -> None:
        self.running = False


def test_a_cluster_that_others_would_reach_is_ended_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_CLUSTERS", "1")
    ray, before = FakeRay(), dict(os.environ)
    with pytest.raises(InputError, match=r"Ray 9.9 would listen on 192.0.2.7, .* set RAY_ADDRESS"):
        join(ray, None)
    assert not ray.running
    assert dict(os.environ) == before
    assert ray._private.ray_constants.ENABLE_RAY_CLUSTER
