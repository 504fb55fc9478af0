"""Search for code that is not deterministic in the bodies of workflows, in their source, without running them.

The findings of ``steporal lint``, for use in a program::

    from steporal.lint import findings

    assert not findings(client)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..closures.own_code import OwnCode
from .bodies import Body
from .finding import Finding

if TYPE_CHECKING:
    from ..client import Client

__all__ = ["Finding", "findings"]


def findings(client: Client) -> list[Finding]:
    """Return the code that is not deterministic in the bodies of a client's workflows, ordered by file and line.

    A body is followed into the functions of the app that it calls, but not into those that it passes to ``step.run``,
    which may do anything. A line with the comment ``# steporal: ignore`` is skipped, together with what it calls.
    Nothing is found if the source of a handler is not available, or behind what only a run knows: the type of a
    parameter without an annotation, or a function in a dict.
    """
    own_code = OwnCode(workflow.handler for workflow in client.workflows)
    all_findings = [finding for workflow in client.workflows for finding in Body(workflow, own_code).findings()]
    return sorted(all_findings, key=lambda finding: (finding.file, finding.line, finding.workflow, finding.does))
