"""Crates: where a batch and all that is made of it lie while it is under way, with a docket that says what was done.

A crate is a piece of shared memory. It is taken when a batch is sent and given back when it has been answered or lost,
so nothing in between needs to be allocated, freed or locked. Its first words are the *docket*:

    LAST    the last step that it goes to by itself: before, workers pass the batch on to each other
    TELL    whether the frontend is to be told when that is through; the first word of all says so for all crates
    CLASS   what it holds: which pipeline (or route) its requests are on, which tells where tensors lie
    SIZE    requests in it
    SAMPLE  the sample that its first request brings; the next ones bring the samples that follow
    and per step of its way a TICKET (of the packet that brings it there, each has its own), the WORKER that is to serve
    it, and the times at which that began, had computed and had written its outputs (ns of the monotonic clock that
    processes share; 0: not yet).

The frontend writes all but the times, each of which only one worker writes; words of 64 bits are written and read
whole. A packet that comes late is noticed by its ticket: what lies in the inbox of a worker that has died, another one
may have done when somebody reads it.
"""

from collections.abc import Sequence

from simulator.executor.layouts import ALIGNMENT, aligned
from simulator.executor.transport import Segment, words_of

LAST, TELL, CLASS, SIZE, SAMPLE, HEAD = range(6)  # HEAD: where the steps begin
TICKET, WORKER, START, COMPUTED, END, STEP = range(6)  # STEP: words of a step
WORD_BYTES = 8
TELL_ALL = 0  # where the word stands that concerns all crates


def docket_bytes(steps: int) -> int:
    """Return what a docket takes."""
    return aligned(WORD_BYTES * (HEAD + STEP * steps))


class Crates:
    """As many crates as may be in use at once, all of one size; a crate is told by its offset in the segment.

    Examples
    --------
    >>> crates = Crates(count=2, steps=1, nbytes=100)
    >>> crate = crates.take(2, size=8, sample=5)
    >>> crates.direct(crate, 0, ticket=7, workers=[3], tell=True)
    >>> crates.words[crate // WORD_BYTES + SIZE], crates.times_ns(crate, 0)
    (8, (0, 0, 0))
    >>> crates.give_back(crate)
    >>> crates.close()
    """

    def __init__(self, count: int, steps: int, nbytes: int) -> None:
        size = docket_bytes(steps) + aligned(nbytes)
        self.segment = Segment(ALIGNMENT + count * size)
        self.words = words_of(self.segment.memory)
        self._steps = steps
        self._free = [ALIGNMENT + crate * size for crate in reversed(range(count))]

    def take(self, of_class: int, size: int, sample: int) -> int:
        """Return a crate that nobody uses."""
        crate = self._free.pop()
        at = crate // WORD_BYTES
        self.words[at + CLASS], self.words[at + SIZE], self.words[at + SAMPLE] = of_class, size, sample
        return crate

    def give_back(self, crate: int) -> None:
        """Let a crate be used again; what is on its way to workers still is void."""
        assert crate not in self._free, "a crate was given back twice"
        at = crate // WORD_BYTES
        for step in range(self._steps):
            self.words[at + HEAD + STEP * step + TICKET] = -1
        self._free.append(crate)

    def direct(self, crate: int, step: int, ticket: int, workers: Sequence[int], tell: bool) -> None:
        """Write down who is to serve a crate in a step and those that follow, and whether to tell of its end."""
        words, at = self.words, crate // WORD_BYTES
        words[at + LAST], words[at + TELL] = step + len(workers) - 1, tell
        at += HEAD + STEP * step
        for worker in workers:
            words[at + START] = words[at + COMPUTED] = words[at + END] = 0
            words[at + WORKER], words[at + TICKET] = worker, ticket
            at += STEP

    def times_ns(self, crate: int, step: int) -> tuple[int, int, int]:
        """Return when a step began, had computed, and had written its outputs; 0 where it has not."""
        at = crate // WORD_BYTES + HEAD + STEP * step + START
        return self.words[at], self.words[at + 1], self.words[at + 2]

    def has_ended(self, crate: int, step: int) -> bool:
        """Return whether a step is through."""
        return self.words[crate // WORD_BYTES + HEAD + STEP * step + END] != 0

    def of_class(self, crate: int) -> int:
        """Return what a crate holds."""
        return self.words[crate // WORD_BYTES + CLASS]

    def sample(self, crate: int) -> int:
        """Return the sample that the first request of a crate brings."""
        return self.words[crate // WORD_BYTES + SAMPLE]

    def halt(self, crate: int, step: int) -> None:
        """Let a crate come back after a step."""
        at = crate // WORD_BYTES
        self.words[at + TELL], self.words[at + LAST] = True, step

    def void(self, crate: int, step: int) -> None:
        """Let no worker serve a step, whoever has a packet of it, until it is directed again."""
        self.words[crate // WORD_BYTES + HEAD + STEP * step + TICKET] = -1

    def tell_all(self, wanted: bool) -> None:
        """Say whether the frontend is to be told of every crate that is through."""
        self.words[TELL_ALL] = wanted

    def close(self) -> None:
        """Free the memory."""
        self.words.release()
        self.segment.close()
