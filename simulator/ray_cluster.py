"""Joining a Ray cluster: the one that is connected, the one at RAY_ADDRESS, or one on this machine alone.

Ray's workers listen on all interfaces by default. A cluster that is started here listens on loopback only; for one of
several machines, let a firewall admit none but these machines to Ray's ports (6379, 8265, 10001 and the workers' range,
``ray start --min-worker-port --max-worker-port``): whoever reaches them can run code there.
"""

import os
import socket
from typing import Any

from planner.model import InputError

LOOPBACK = "127.0.0.1"
PATIENCE_S = 5.0


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
        Nobody answers at the address within a few seconds.
    """
    if not address:
        ray.init(_node_ip_address=LOOPBACK, log_to_driver=False, include_dashboard=False)
        return
    require_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"RAY_ADDRESS={address}: no Ray cluster can be joined there ({reason})") from None


def require_reachable(address: str) -> None:
    """Raise InputError unless something listens at HOST:PORT, within a few seconds; Ray itself asks for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():  # auto, local: Ray's own words
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"RAY_ADDRESS={address}: nobody answers there ({error}); start the cluster with `ray start --head`, or "
            "correct the address"
        ) from None


def address() -> str | None:
    """Return where the cluster is, as the environment says it."""
    return os.environ.get("RAY_ADDRESS") or None
