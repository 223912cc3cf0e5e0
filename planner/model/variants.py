"""One model file read with several settings, such as sequence lengths: profiles that are variants of a DNN."""

from typing import Annotated

from annotated_types import MinLen

from planner.model.errors import InputError
from planner.model.profile import Profile
from planner.model.record import record


@record
class Variants:
    """Profiles of one model file, each with settings of its own; a problem names them all by the file that they share.

    Examples
    --------
    >>> from planner.model import Block, Profile
    >>> short, long = (Profile(f"bert@seq={size}", (Block(("attention",)),), (), ()) for size in (64, 128))
    >>> [profile.name for profile in Variants((short, long)).profiles]
    ['bert@seq=64', 'bert@seq=128']
    """

    profiles: Annotated[tuple[Profile, ...], MinLen(1)]

    def __post_init__(self) -> None:
        """Refuse two profiles of one name, and of different model files."""
        names = [profile.name for profile in self.profiles]
        if len(set(names)) != len(names):
            raise InputError(f"profiles: names must differ, got {names}")
        hashes = {profile.name: profile.model_sha256 for profile in self.profiles}
        if len(set(hashes.values())) > 1:
            told = ", ".join(f"{name} of {str(sha256)[:12]}" for name, sha256 in hashes.items())
            raise InputError(
                f"profiles: expected one model file's, by its hash, got {told}; keep a file for each model"
            )
