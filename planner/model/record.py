"""The decorator of every data-model class."""

from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

# Read by pydantic when a file is validated (planner.files.documents): unknown keys are refused, texts
# are not taken for numbers, and NaN is no number.
FILE_RULES: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


# Metadata of a field that came after files had been hashed: at its default it is left out of a digest.
LATER = {"digest": "unless default"}


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a frozen dataclass whose annotations also say what a file may hold.

    Constraints such as ``Annotated[int, Ge(1)]`` are checked where files are read; objects that
    algorithms build are trusted.
    """
    made = dataclass(frozen=True)(cls)
    made.__pydantic_config__ = FILE_RULES  # type: ignore[attr-defined]
    return made
