"""Profiles of one model from several machines, joined into one."""

from collections.abc import Sequence
from dataclasses import replace

from planner.model import InputError, LatencyTable, Profile
from planner.model.segments import on_device

Named = tuple[str, Profile]  # a profile, and where it is from


def joined(profiles: Sequence[Named]) -> tuple[Profile, ...]:
    """Return one profile per size of a model, with the tables of all of its profiles.

    Measured latencies take the place of estimated ones of the same share of a device.

    Parameters
    ----------
    profiles
        Each with the name of its file, for messages. Those of one name are joined; those of other names must be of the
        same model file at other sizes.

    Raises
    ------
    InputError
        Profiles of different models or blocks, or two unlike tables for one share of a device.

    Examples
    --------
    >>> from planner.model import *
    >>> def profile(device):
    ...     table = LatencyTable(device, 1, (1,), ((5,),), Provenance("measured", "by hand"))
    ...     return Profile("toy", (Block(("a",)),), (), (table,))
    >>> (both,) = joined([("here.json", profile("L4")), ("there.json", profile("T4"))])
    >>> both.devices
    ('L4', 'T4')
    """
    found: dict[str, Named] = {}
    for path, profile in profiles:
        first_path, first = profiles[0]
        if profile.name != first.name and (profile.model_sha256 is None or profile.model_sha256 != first.model_sha256):
            raise InputError(
                f"{path}: is the profile of {profile.name}, {first_path} of {first.name}; merge profiles of one model"
            )
        known = found.get(profile.name)
        found[profile.name] = (path, profile) if known is None else (known[0], _with(known, (path, profile)))
    return tuple(profile for _, profile in found.values())


def _with(known: Named, other: Named) -> Profile:
    """Return a profile with the tables of another one of the same blocks."""
    (path, mine), (other_path, theirs) = known, other
    for what in ("blocks", "cut_bytes", "settings", "input_bytes", "outputs", "model_sha256"):
        ours, its = getattr(mine, what), getattr(theirs, what)
        if ours is not None and its is not None and ours != its:
            raise InputError(
                f"{other_path}: {what} of {theirs.name} are not those of {path}; take {path} along and profile into it "
                "there, which keeps its blocks"
            )
        mine = replace(mine, **{what: ours if its is None else its})
    return replace(
        mine,
        tables=_all(mine.tables, theirs.tables, path, other_path),
        bounds=_all(mine.bounds, theirs.bounds, path, other_path),
    )


def _all(
    mine: tuple[LatencyTable, ...], theirs: tuple[LatencyTable, ...], path: str, other_path: str
) -> tuple[LatencyTable, ...]:
    """Return the tables of both; what was measured takes the place of what was estimated."""
    known = {(table.device, table.share, table.provenance.level): table for table in mine}
    for table in theirs:
        key = table.device, table.share, table.provenance.level
        before = known.setdefault(key, table)
        kinds = before.provenance.kind, table.provenance.kind
        if kinds == ("estimated", "measured"):
            known[key] = table
        elif before != table and kinds != ("measured", "estimated"):
            raise InputError(
                f"{other_path}: {kinds[1]} latencies on {on_device(table.device, table.share)} are not those of {path};"
                " give each machine a --device name of its own, or leave out one of the two"
            )
    return tuple(known.values())
