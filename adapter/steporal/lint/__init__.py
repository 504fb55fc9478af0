"""Finds what is not deterministic in the bodies of workflows, in their source, without running any.

What ``steporal lint`` prints, for a program::

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
    """What is not deterministic in the bodies of a client's workflows, in the order of files and lines.

    A body is followed into the functions of the app that it calls, and not into those that it passes to ``step.run``,
    which may do anything. A line with the comment ``# steporal: ignore`` is passed over, with what it calls. Nothing is
    found where the source of a handler is not at hand, nor behind what only a run knows: the type of a parameter
    without an annotation, a function in a dict.
    """
    own_code = OwnCode(workflow.handler for workflow in client.workflows)
    found = [finding for workflow in client.workflows for finding in Body(workflow, own_code).findings()]
    return sorted(found, key=lambda finding: (finding.file, finding.line, finding.workflow, finding.does))
