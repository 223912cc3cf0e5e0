"""Linear and mixed-integer models: named columns and rows as sparse arrays, and what solving one gives.

A model is

    minimise or maximise   objective · x
    subject to             row_lower <= A x <= row_upper,   lower <= x <= upper,   x_j integer where said

with A kept by rows. Building one costs about a microsecond a coefficient, and backends take the arrays as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, isinf
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats

Status = Literal["optimal", "feasible", "infeasible", "unbounded", "no solution"]


class Arrays(NamedTuple):
    """A model as arrays; row i holds ``values[start[i]:start[i + 1]]`` in ``columns[start[i]:start[i + 1]]``."""

    objective: Floats
    lower: Floats
    upper: Floats
    integer: NDArray[np.bool_]
    row_lower: Floats
    row_upper: Floats
    start: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: Floats


@dataclass
class LinearModel:
    """A model under construction; columns and rows are numbered as they are added.

    Examples
    --------
    >>> model = LinearModel(maximise=True)
    >>> pipelines = model.add_column("pipelines", upper=10, objective=1.0, integer=True)
    >>> model.add_row("devices[L4]", [(pipelines, 2.0)], upper=7)
    0
    >>> print(model.text())
    maximise
      1 pipelines
    subject to
      devices[L4]: 2 pipelines <= 7
    bounds
      0 <= pipelines <= 10
    integer
      pipelines
    """

    maximise: bool = False
    column_names: list[str] = field(default_factory=list)
    row_names: list[str] = field(default_factory=list)
    _lower: list[float] = field(default_factory=list)
    _upper: list[float] = field(default_factory=list)
    _objective: list[float] = field(default_factory=list)
    _integer: list[bool] = field(default_factory=list)
    _row_lower: list[float] = field(default_factory=list)
    _row_upper: list[float] = field(default_factory=list)
    _start: list[int] = field(default_factory=lambda: [0])
    _columns: list[int] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)

    def add_column(
        self, name: str, *, lower: float = 0.0, upper: float = inf, objective: float = 0.0, integer: bool = False
    ) -> int:
        """Add a variable and return its number."""
        self.column_names.append(name)
        self._lower.append(lower)
        self._upper.append(upper)
        self._objective.append(objective)
        self._integer.append(integer)
        return len(self.column_names) - 1

    def add_row(self, name: str, terms: Iterable[tuple[int, float]], *, lower: float = -inf, upper: float = inf) -> int:
        """Add lower <= sum of coefficient · column <= upper, each column at most once, and return the row's number."""
        for column, coefficient in terms:
            self._columns.append(column)
            self._values.append(coefficient)
        self._start.append(len(self._columns))
        self.row_names.append(name)
        self._row_lower.append(lower)
        self._row_upper.append(upper)
        return len(self.row_names) - 1

    def set_objective(self, terms: Iterable[tuple[int, float]], *, maximise: bool) -> None:
        """Replace the objective; columns that are not named get 0."""
        self.maximise = maximise
        self._objective = [0.0] * len(self.column_names)
        for column, coefficient in terms:
            self._objective[column] = coefficient

    def relax_integers(self) -> None:
        """Let every integer column take fractions."""
        self._integer = [False] * len(self.column_names)

    @property
    def objective_terms(self) -> list[tuple[int, float]]:
        """The columns in the objective with their coefficients."""
        return [(column, coefficient) for column, coefficient in enumerate(self._objective) if coefficient]

    @property
    def has_integers(self) -> bool:
        """Whether any column is integer."""
        return any(self._integer)

    def arrays(self) -> Arrays:
        """Return the model as arrays."""
        return Arrays(
            np.array(self._objective, dtype=np.float64),
            np.array(self._lower, dtype=np.float64),
            np.array(self._upper, dtype=np.float64),
            np.array(self._integer, dtype=np.bool_),
            np.array(self._row_lower, dtype=np.float64),
            np.array(self._row_upper, dtype=np.float64),
            np.array(self._start, dtype=np.int32),
            np.array(self._columns, dtype=np.int32),
            np.array(self._values, dtype=np.float64),
        )

    def text(self) -> str:
        """Return the model in the words of an LP file, for people to read."""
        rows = [
            f"{name}: {_sides(self._row_lower[row], self._expression(row), self._row_upper[row])}"
            for row, name in enumerate(self.row_names)
        ]
        bounds = [_sides(*entry) for entry in zip(self._lower, self.column_names, self._upper, strict=True)]
        integers = [name for name, integer in zip(self.column_names, self._integer, strict=True) if integer]
        sections = {
            "maximise" if self.maximise else "minimise": [self._sum(self.objective_terms)],
            "subject to": rows,
            "bounds": bounds,
            "integer": integers,
        }
        return "\n".join(
            line for title, lines in sections.items() for line in (title, *(f"  {text}" for text in lines))
        )

    def _expression(self, row: int) -> str:
        part = slice(self._start[row], self._start[row + 1])
        return self._sum(zip(self._columns[part], self._values[part], strict=True))

    def _sum(self, terms: Iterable[tuple[int, float]]) -> str:
        return " + ".join(f"{coefficient:g} {self.column_names[column]}" for column, coefficient in terms) or "0"


def _sides(lower: float, expression: str, upper: float) -> str:
    """Write lower <= expression <= upper without the sides that are infinite."""
    if lower == upper:
        return f"{expression} = {lower:g}"
    left = "" if isinf(lower) else f"{lower:g} <= "
    right = "" if isinf(upper) else f" <= {upper:g}"
    return f"{left}{expression}{right}"


@dataclass(frozen=True)
class Solution:
    """What a backend found.

    ``bound`` is what no solution can exceed (fall below, when minimising). ``values`` has an entry per column and is
    empty where there is no solution. ``row_duals`` is the change of the optimum per unit of each row's limit, and
    ``column_duals`` per unit of each column's; both are empty for models with integers.
    """

    status: Status
    objective: float
    bound: float
    values: Floats
    row_duals: Floats
    column_duals: Floats

    @property
    def found(self) -> bool:
        """Whether there are values."""
        return self.status in ("optimal", "feasible")


NO_VALUES: Floats = np.array([], dtype=np.float64)


def without_values(status: Status, *, maximise: bool) -> Solution:
    """Return the solution that says why there is none."""
    worst = -inf if maximise else inf
    bound = worst if status == "infeasible" else -worst
    return Solution(status, worst, bound, NO_VALUES, NO_VALUES, NO_VALUES)
