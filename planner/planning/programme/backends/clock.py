"""When to stop: limits, clocks that tell what is left of them, and a clock that counts work in place of time.

What a search finds by a wall clock is another thing in every run, and much less on a busy machine. Where results have
to be the same, such as X0, on which the values of all plans rest, work is counted in place of time: whoever works says
how many seconds that takes about on the machine *Emerald* of scripts/README.md (`Clock.spend`), by a rule that knows
the problem only. Loops say so after each step, and solvers as they go, so that such a clock stops them at the same
place in every run. Gurobi counts its work in the same way (parameter WorkLimit).
"""

from dataclasses import dataclass, field, replace
from time import monotonic

from planner.model import InputError


class TooLate(InputError):
    """The time was up before any plan was found: there may be one. ``bound`` is what was proven, if anything was."""

    def __init__(
        self, text: str = "no plan was found in the time given; raise the time limit", bound: float | None = None
    ) -> None:
        """Say what was being done, and keep the bound."""
        super().__init__(text)
        self.bound = bound


@dataclass(frozen=True)
class Limits:
    """When a solver may stop: at a relative ``gap``, or after ``time_limit_s`` seconds (None: never).

    Where there is ``work``, the seconds are those that it counts.
    """

    gap: float = 1e-6
    time_limit_s: float | None = None
    work: "Work | None" = field(default=None, compare=False)

    @property
    def wall_s(self) -> float | None:
        """The seconds of wall time, at least a hundredth."""
        return self.time_limit_s if self.work is None else self.work.wall.remaining().time_limit_s


class Work:
    """The work done so far, in seconds, and the wall clock that ends it where the machine is much too slow."""

    def __init__(self, wall: "Clock") -> None:
        self.spent_s = 0.0
        self.wall = wall


class Clock:
    """The time left of some limits, of the wall or of work."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._begin_s = self._now_s

    @property
    def _now_s(self) -> float:
        return monotonic() if self._limits.work is None else self._limits.work.spent_s

    @property
    def given_s(self) -> float | None:
        """The seconds that there were at first."""
        return self._limits.time_limit_s

    def spend(self, seconds: float) -> None:
        """Count work done, where work is counted."""
        if self._limits.work is not None:
            self._limits.work.spent_s += seconds

    def counted(self, seconds: float | None) -> "Clock":
        """Return a clock of work, which is over after so many seconds of it, and in any case when this one is."""
        return Clock(Limits(self._limits.gap, seconds, Work(self)))

    def remaining(self) -> Limits:
        """Return the limits less the time that has passed, at least a hundredth of a second."""
        if self._limits.time_limit_s is None:
            return self._limits
        return replace(self._limits, time_limit_s=max(0.01, self._limits.time_limit_s - (self._now_s - self._begin_s)))

    def part(self, share: float) -> Limits:
        """Return the limits with a share of the time left."""
        left_s = self.remaining().time_limit_s
        return replace(self._limits, time_limit_s=None if left_s is None else share * left_s)

    def sparing(self, share: float, most_s: float) -> "Clock":
        """Return a clock that is over a share of the limit earlier, by ``most_s`` at most."""
        limit_s = self._limits.time_limit_s
        spared = Clock(self._limits)
        spared._begin_s = self._begin_s - (0.0 if limit_s is None else min(share * limit_s, most_s))
        return spared

    def at_most(self, seconds: float) -> "Clock":
        """Return a clock with the time left, but no more than so many seconds."""
        left_s = self.remaining().time_limit_s
        return Clock(replace(self._limits, time_limit_s=seconds if left_s is None else min(seconds, left_s)))

    @property
    def over(self) -> bool:
        """Whether there is no time left."""
        limit_s, work = self._limits.time_limit_s, self._limits.work
        if work is not None and work.wall.over:
            return True
        return limit_s is not None and self._now_s - self._begin_s >= limit_s

    def expect_time(self) -> None:
        """Raise `TooLate` where there is no time left: for loops that make what nothing can be done without."""
        if self.over:
            raise TooLate

    def within(self, other: Limits) -> Limits:
        """Return other limits, cut to half of the time left."""
        left_s, limit_s = self.remaining().time_limit_s, other.time_limit_s
        if left_s is not None and limit_s is not None:
            limit_s = min(limit_s, left_s / 2)
        return replace(self._limits, gap=other.gap, time_limit_s=limit_s)
