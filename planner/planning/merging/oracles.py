"""Who says whether models that share layers keep their accuracy: a rule, answers on file, or a command that retrains.

An oracle is asked about everything that would be shared together, for a model's accuracy depends on all of its merged
groups. Answers are kept and never asked twice.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from planner.model import InputError
from planner.planning.merging.schemes import MergeModel, Sharing, check_sharing

Oracle = Callable[[Sharing], bool]


@dataclass(frozen=True)
class Budget:
    """The rule of CoMPI's example: every model may share so much.

    Accepted if for every model the sum over its shared groups of (models that share it - 1) is at most ``budget``.

    >>> three, pair = frozenset({(0, 0), (1, 0), (2, 0)}), frozenset({(0, 1), (1, 1)})
    >>> Budget(2)(frozenset({three})), Budget(2)(frozenset({three, pair}))
    (True, False)
    """

    budget: int

    def __call__(self, sharing: Sharing) -> bool:
        """Return whether every model keeps within the budget."""
        spent: Counter[int] = Counter()
        for members in sharing:
            spent.update({model: len(members) - 1 for model, _ in members})
        return max(spent.values(), default=0) <= self.budget


@dataclass(frozen=True)
class Command:
    """A program that gets a question as JSON on standard input and answers ``{"accepted": true}`` on standard output.

    The question is ``{"shared": [[["model", group], ...], ...]}``: the groups of each list are to be one copy. A try
    that fails, or takes longer than ``limit_s``, is repeated ``retries`` times.
    """

    models: tuple[MergeModel, ...]
    command: tuple[str, ...]
    limit_s: float = 3600.0
    retries: int = 1

    def __call__(self, sharing: Sharing) -> bool:
        """Return what the program answers; raises InputError where it keeps failing or answers nonsense."""
        question = json.dumps({"shared": as_document(self.models, sharing)})
        reason = ""
        for _ in range(self.retries + 1):
            try:
                done = subprocess.run(
                    self.command, input=question, capture_output=True, text=True, timeout=self.limit_s, check=False
                )
            except subprocess.TimeoutExpired:
                reason = f"no answer within {self.limit_s:g} s"
                continue
            except OSError as error:
                raise InputError(f"oracle {self.command[0]}: {error.strerror}; expected a program to run") from None
            if done.returncode:
                reason = f"exit status {done.returncode}: {done.stderr.strip()[-200:]}"
                continue
            return self._read(done.stdout)
        raise InputError(
            f"oracle {self.command[0]}: {reason}, in {self.retries + 1} tries; the answers so far are kept"
        )

    def _read(self, text: str) -> bool:
        try:
            accepted = json.loads(text)["accepted"]
        except (ValueError, KeyError, TypeError):
            accepted = None
        if not isinstance(accepted, bool):
            raise InputError(
                f'oracle {self.command[0]}: expected {{"accepted": true}} or false, got {text.strip()[:80]!r}'
            )
        return accepted


@dataclass
class History:
    """Answers that are kept, in a file if there is one; what was answered is never asked again.

    What shares less than something accepted is accepted, and what shares more than something refused is refused, unless
    ``monotone`` is false. Answers that contradict that are refused in one line.
    """

    models: tuple[MergeModel, ...]
    oracle: Oracle | None = None
    path: Path | None = None
    monotone: bool = True
    answers: dict[Sharing, bool] = field(default_factory=dict)
    asked: int = 0

    def __post_init__(self) -> None:
        """Read the answers on file."""
        if self.path is not None and self.path.exists():
            try:
                lines = self.path.read_text(encoding="utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise InputError(f"{self.path}: {error}; expected a file of answers, a line of JSON each") from None
            for number, line in enumerate(lines, 1):
                self._read(line, f"{self.path}: line {number}")

    def __call__(self, sharing: Sharing) -> bool:
        """Return the answer known or implied, else ask and keep it."""
        known = self.known(sharing)
        if known is not None:
            return known
        document = as_document(self.models, sharing)
        if self.oracle is None:
            raise InputError(f"no answer on file for {document}; add it, or give an oracle that can tell")
        accepted = self.oracle(sharing)
        self.asked += 1
        self.answers[sharing] = accepted
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"shared": document, "accepted": accepted}) + "\n")
        return accepted

    def known(self, sharing: Sharing) -> bool | None:
        """Return the answer that is known or follows from those known; None where neither."""
        if not sharing:
            return True
        if sharing in self.answers:
            return self.answers[sharing]
        if self.monotone:
            if any(accepted and within(sharing, other) for other, accepted in self.answers.items()):
                return True
            if any(not accepted and within(other, sharing) for other, accepted in self.answers.items()):
                return False
        return None

    @property
    def refused(self) -> list[Sharing]:
        """What was refused."""
        return [sharing for sharing, accepted in self.answers.items() if not accepted]

    @property
    def accepted(self) -> list[Sharing]:
        """What was accepted."""
        return [sharing for sharing, accepted in self.answers.items() if accepted]

    def _read(self, line: str, where: str) -> None:
        numbers = {model.name: number for number, model in enumerate(self.models)}
        try:
            entry = json.loads(line)
            accepted, shared = entry["accepted"], [[(str(n), int(g)) for n, g in one] for one in entry["shared"]]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{where}: expected shared and accepted, got {line[:80]!r}") from None
        if not isinstance(accepted, bool):
            raise InputError(f"{where}: accepted: expected true or false, got {accepted!r}")
        if unknown := {name for members in shared for name, _ in members} - set(numbers):
            raise InputError(
                f"{where}: an answer about {sorted(unknown)}; the models are {sorted(numbers)}: use another history"
            )
        sharing = frozenset(frozenset((numbers[name], group) for name, group in members) for members in shared)
        try:
            check_sharing(self.models, sharing)
        except InputError as error:
            raise InputError(f"{where}: {error}; use another history") from None
        if self.known(sharing) not in (None, accepted):
            raise InputError(
                f"{where}: it says {'accepted' if accepted else 'refused'}, which earlier answers contradict; "
                "remove one of them, or do not assume that sharing less is easier"
            )
        self.answers[sharing] = accepted


def within(less: Sharing, more: Sharing) -> bool:
    """Whether everything that is shared in ``less`` is shared in ``more`` as well."""
    return all(any(members <= others for others in more) for members in less)


def as_document(models: tuple[MergeModel, ...], sharing: Sharing) -> list[list[list[str | int]]]:
    """Return sharing as it is written: lists of a model's name and the number of its group."""
    return [[[models[model].name, group] for model, group in sorted(members)] for members in sorted(sharing, key=min)]
