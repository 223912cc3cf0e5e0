"""What a policy answers: what to do now with the head of the queue."""

# Actions.
DROP, SEND, WAIT = range(3)

# An action; the pipeline and the batch size that it is about; the cause of a drop, or the time to wake.
Decision = tuple[int, int, int, int]

# Outcomes of a request.
FINISHED = 0
OPEN = 1  # not dealt with when the run ended
HOPELESS = 2  # dropped when first looked at: no batch of nearly the planned size could meet its deadline
LATE = 3  # dropped after it waited: no batch could meet its deadline any more
LOST = 4  # it was on a slice that failed, and could not be retried

OUTCOMES = ("finished", "open", "hopeless", "late", "lost")
