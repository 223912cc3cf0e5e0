"""What a search for schemes asks and finds."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.model import InputError
from planner.planning.merging.deployment import Deployment, MergeProblem, deploy
from planner.planning.merging.schemes import Scheme, Sharing
from planner.planning.programme.backends import TooLate


@dataclass(frozen=True)
class Try:
    """What the oracle was asked: everything shared together, what that saves (bytes), and the answer.

    ``scheme`` is what is new in it, where a search adds schemes one by one.
    """

    sharing: Sharing
    saved_bytes: int
    accepted: bool
    scheme: Scheme | None = None


@dataclass(frozen=True)
class Found:
    """Sharing that the oracle accepts, the deployment with it, and what it saves over sharing nothing (bytes).

    ``bound_bytes`` is the most that any sharing can save that the answers do not rule out; None where nobody knows.
    """

    tries: tuple[Try, ...]
    sharing: Sharing
    deployment: Deployment
    saved_bytes: int
    bound_bytes: int | None


class Savings:
    """What schemes save, planned once each."""

    def __init__(self, problem: MergeProblem, planner: Callable[[MergeProblem], Deployment] = deploy) -> None:
        self.problem, self.planner = problem, planner
        self.known: dict[Sharing, Deployment | None] = {}
        apart = self.deployment(frozenset())
        if apart is None:  # nothing fits without sharing: what a deployment without limits of memory needs
            room = sum(model.parameter_bytes for model in problem.models)
            apart = planner(replace(problem, sharing=frozenset(), device_bytes=(room,) * len(problem.device_bytes)))
        self.apart_bytes: int = apart.memory_bytes

    def deployment(self, sharing: Sharing) -> Deployment | None:
        """Return how sharing is deployed; None where nothing can be. Raises TooLate where the planner does."""
        if sharing not in self.known:
            try:
                self.known[sharing] = self.planner(replace(self.problem, sharing=sharing))
            except TooLate:
                raise
            except InputError:
                self.known[sharing] = None
        return self.known[sharing]

    def of(self, sharing: Sharing) -> int | None:
        """Return the bytes that sharing saves; None where nothing can be deployed with it."""
        deployment = self.deployment(sharing)
        return None if deployment is None else self.apart_bytes - deployment.memory_bytes
