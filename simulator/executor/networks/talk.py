"""What a live run tells its workers, and what they tell it."""

from typing import NamedTuple, Protocol


class Service(NamedTuple):
    """A batch that a server begins: ``requests`` (numbers in the run), each with the step of its way that this is.

    ``station`` is that of the network; ``number`` counts the services of the run.
    """

    number: int
    server: int
    station: int
    kind: int
    requests: tuple[int, ...]
    steps: tuple[int, ...]


class Ended(NamedTuple):
    """A worker is through with a service; ``failed`` says why it has no outputs, if it has none."""

    server: int
    number: int
    start_us: int
    end_us: int
    failed: str = ""


class Gone(NamedTuple):
    """A worker is no more, nor what it worked on."""

    server: int
    reason: str


class Ready(NamedTuple):
    """A worker may begin."""

    server: int


Event = Ended | Gone | Ready


class Staff(Protocol):
    """The workers of a network, one per server that is on, and the clock that they work by."""

    def now_us(self) -> int:
        """Return the time since the run began."""

    def begin(self, service: Service) -> None:
        """Let a worker serve a batch."""

    def poll(self, until_us: int) -> list[Event]:
        """Return what happened; wait for it until a time at most."""

    def load(self, server: int, kind: int) -> None:
        """Start a worker for a server, as one of a kind; a `Ready` follows."""

    def leave(self, server: int) -> None:
        """End the worker of a server, which has nothing to do."""

    def done(self, request: int, finished: bool) -> None:
        """Learn that a request has its outcome, and that nothing is being done for it any more."""
