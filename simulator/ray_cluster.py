"""Joining a Ray cluster: the one that is connected, the one at RAY_ADDRESS, or one on this machine alone.

Whoever reaches a Ray process can run code there. All processes of a cluster that is started here listen on loopback
only; what to close for a cluster of several machines stands in simulator/README.md.
"""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from planner.model import InputError

LOOPBACK = "127.0.0.1"
PATIENCE_S = 4.0

# Asks the head of a cluster who it is, in a process of its own: Ray itself asks for most of a minute, and heeds no
# signal meanwhile. The empty line says that Ray is there to ask.
ASK = "import sys; from ray._raylet import GcsClient; print(flush=True); GcsClient(address=sys.argv[1])"


def ray_module() -> Any:
    """Return Ray; raises InputError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed; run `pip install 'poolpipe[ray]'`, or use this machine") from None
    return ray


def join(ray: Any, address: str | None) -> None:
    """Connect to the cluster at an address, else start one on this machine's loopback.

    Raises
    ------
    InputError
        No cluster answers at the address within seconds, or Ray cannot be kept to loopback.
    """
    if not address:
        _start_on_loopback(ray)
        return
    require_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"RAY_ADDRESS={address}: no Ray cluster can be joined there ({reason})") from None


def require_reachable(address: str) -> None:
    """Raise InputError unless the head of a Ray cluster answers at HOST:PORT within a few seconds."""
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():  # auto, local: Ray's own words
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"RAY_ADDRESS={address}: nobody answers there ({error}); start the cluster with `ray start --head`, or "
            "correct the address"
        ) from None
    if not scheme and not _is_head(place):
        raise InputError(
            f"RAY_ADDRESS={address}: what answers there is not the head of a Ray cluster; `ray start --head` says its "
            "address, on port 6379 unless told otherwise"
        )


def address() -> str | None:
    """Return where the cluster is, as the environment says it."""
    return os.environ.get("RAY_ADDRESS") or None


def _is_head(place: str) -> bool:
    with subprocess.Popen(
        [sys.executable, "-c", ASK, place], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as asking:
        assert asking.stdout is not None
        try:
            asking.stdout.readline()
            return asking.wait(PATIENCE_S) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            asking.kill()


def _start_on_loopback(ray: Any) -> None:
    """Start a cluster whose processes are reached from this machine only; raises InputError where Ray would not."""
    with _without_clusters(ray):
        ray.init(address="local", log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    listens = {str(node["NodeManagerAddress"]) for node in ray.nodes()}
    if listens != {LOOPBACK}:
        ray.shutdown()
        raise InputError(
            f"Ray {ray.__version__} would listen on {', '.join(sorted(listens))}, for others to reach; start a cluster "
            "yourself behind a firewall and set RAY_ADDRESS, or use this machine without Ray"
        )


@contextmanager
def _without_clusters(ray: Any) -> Iterator[None]:
    """Let Ray start what stays on this machine, as it does on desktops, where firewalls would ask about more.

    Else it listens where others reach it, also when it is given 127.0.0.1: it looks for another address then. Its
    processes know each other by a token of their own, which Ray would leave in the user's home.
    """
    constants = ray._private.ray_constants
    switch, before = constants.ENABLE_RAY_CLUSTERS_ENV_VAR, constants.ENABLE_RAY_CLUSTER
    told = os.environ.copy()
    os.environ |= {switch: "0", "RAY_AUTH_TOKEN": told.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)}
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        for name in (switch, "RAY_AUTH_TOKEN"):
            os.environ.pop(name)
        os.environ |= told
