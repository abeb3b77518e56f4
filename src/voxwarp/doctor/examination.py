"""All checks and the self-test together."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from . import self_test
from .checks import CHECKS, Finding


@dataclass(frozen=True)
class Examination:
    """What is known about an installation.

    Args:
        findings: of the checks, in their order; the last is that of the self-test, if it was run.
    """

    findings: list[Finding]

    @property
    def problems(self) -> list[str]:
        """What is wrong; registrations may fail or be wrong."""
        return [text for finding in self.findings for text in finding.problems]

    @property
    def notes(self) -> list[str]:
        """What is unusual, but works."""
        return [text for finding in self.findings for text in finding.notes]

    def record(self) -> dict[str, Any]:
        """Everything, as it is written as JSON."""
        facts = {finding.topic: dict(finding.facts) for finding in self.findings}
        return {**facts, "problems": self.problems, "notes": self.notes}

    def lines(self) -> Iterator[str]:
        """Everything, as it is printed."""
        for finding in self.findings:
            if not finding.facts:
                continue
            yield finding.topic
            width = max(map(len, finding.facts))
            for name, value in finding.facts.items():
                yield f"  {name:<{width}}  {_shown(value)}".rstrip()
        for text in self.notes:
            yield f"note: {text}"
        for text in self.problems:
            yield f"problem: {text}"
        if not self.problems:
            yield "no problem was found"


def examine(
    *, with_self_test: bool = True, progress: Callable[[str], None] = lambda stage: None
) -> Examination:
    """Check the installation.

    Args:
        with_self_test: also register an image whose deformation is known.
        progress: called with the name of each stage when it starts.
    """
    findings = []
    for check in CHECKS:
        progress(check.__name__)
        findings.append(check())
    if with_self_test:
        findings.append(_self_tested(progress))
    return Examination(findings)


def _self_tested(progress: Callable[[str], None]) -> Finding:
    try:
        outcome = self_test.run(progress=progress)
    except Exception as error:  # an installation that is broken can raise anything
        reason = f"the self-test failed: {type(error).__name__}: {' '.join(str(error).split())}"
        return Finding("self-test", {"result": "failed"}, [reason])
    facts = {name: round(value, 3) for name, value in asdict(outcome).items()}
    result = "failed" if outcome.problem else "passed"
    problems = [outcome.problem] if outcome.problem else []
    return Finding("self-test", {"result": result, **facts}, problems)


def _shown(value: Any) -> str:
    """A value as it is printed."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
