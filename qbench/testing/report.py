"""What comes of a contract check: the clauses that hold, or one error that tells all that are broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from qbench.errors import QbenchError

MOST_FAULTS = 3
"""How many faults of one clause are told: what is wrong with one layer is mostly wrong with all."""
SubjectT = TypeVar("SubjectT", contravariant=True)


@dataclass(frozen=True)
class Clause(Generic[SubjectT]):
    """One promise of a contract.

    Attributes:
        name: one or two words.
        remedy: what to do where it is broken.
        faults: yields what breaks it, a sentence each; an exception breaks it too.
        is_ground: whether the clauses after it cannot be examined where it is broken.
    """

    name: str
    remedy: str
    faults: Callable[[SubjectT], Iterable[str]]
    is_ground: bool = False


@dataclass(frozen=True)
class Report:
    """The clauses of a contract that were examined and hold.

    Attributes:
        subject: what was examined, such as ``method 'linear'``.
        passed: names of the clauses.
    """

    subject: str
    passed: tuple[str, ...]


@dataclass(frozen=True)
class Violation:
    """A clause that is broken.

    Attributes:
        clause: its name.
        faults: what breaks it.
        remedy: what to do.
    """

    clause: str
    faults: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        more = len(self.faults) - MOST_FAULTS
        told = [*self.faults[:MOST_FAULTS], *([f"and {more} more of the kind"] if more > 0 else [])]
        return "\n".join([f"{self.clause}:", *(f"  - {fault}" for fault in told), f"  {self.remedy}"])


class ContractViolation(AssertionError):
    """A plugin breaks its contract.

    Attributes:
        violations: every clause that is broken.
        report: the clauses that hold.
    """

    def __init__(self, violations: Sequence[Violation], report: Report) -> None:
        self.violations = tuple(violations)
        self.report = report
        count = "1 clause" if len(violations) == 1 else f"{len(violations)} clauses"
        super().__init__("\n\n".join([f"{report.subject} breaks {count} of its contract", *map(str, violations)]))


def examine(name: str, clauses: Iterable[Clause[SubjectT]], subject: SubjectT) -> Report:
    """Examine clause after clause.

    Args:
        name: of the subject.
        clauses: in order.
        subject: what is examined.

    Raises:
        ContractViolation: one is broken; all that could be examined are told together.
    """
    passed: list[str] = []
    violations: list[Violation] = []
    for clause in clauses:
        faults = tuple(dict.fromkeys(_told(clause, subject)))
        if not faults:
            passed.append(clause.name)
            continue
        violations.append(Violation(clause.name, faults, clause.remedy))
        if clause.is_ground:
            break
    report = Report(name, tuple(passed))
    if violations:
        raise ContractViolation(violations, report)
    return report


def _told(clause: Clause[SubjectT], subject: SubjectT) -> Iterable[str]:
    try:
        yield from clause.faults(subject)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a plugin's own code runs in there: whatever it raises, SystemExit too, is a fault
        yield raised(error)


def raised(error: BaseException) -> str:
    """Return what an exception of a plugin's own code says, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, QbenchError) and text else f"it raises {type(error).__name__}: {text}"
