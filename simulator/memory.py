"""Memory that an input would need, estimated before it is taken."""

from planner.model import InputError

SHARE = 0.8  # of what is free now


def require_memory(needed_bytes: float, what: str, instead: str) -> None:
    """Raise InputError where something needs more memory than is free; ``instead`` says what to do.

    >>> require_memory(1e18, "10^16 arrivals", "offer fewer")
    Traceback (most recent call last):
    planner.model.errors.InputError: 10^16 arrivals would take about 1e+09 GB of memory; offer fewer
    """
    import psutil

    if needed_bytes > SHARE * psutil.virtual_memory().available:
        raise InputError(f"{what} would take about {needed_bytes / 1e9:.3g} GB of memory; {instead}")
