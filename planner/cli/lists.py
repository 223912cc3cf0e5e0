"""Options that hold several values."""

from planner.model import InputError


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Read 1,2,4 as increasing positive numbers."""
    parts = [part.strip() for part in text.split(",")]
    found = [int(part) for part in parts if part.isdecimal()]
    if len(found) != len(parts) or found != sorted(set(found)) or found[0] < 1:
        raise InputError(f"{option}: expected increasing integers >= 1 such as 1,2,4, got {text!r}")
    return tuple(found)


def names_in(text: str) -> list[str]:
    """Read V100,T4 as names."""
    return [part.strip() for part in text.split(",") if part.strip()]
