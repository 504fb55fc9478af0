"""Decision whether a run may send secrets: its workers encrypt payloads."""

from __future__ import annotations

from temporalio import workflow

from ..wire.names import SECRETS_ARE_SENT

IS_ENCRYPTED = "steporal.is_encrypted"
"""The name of what tells a run that its worker encrypts payloads."""


class SecretsOfRun:
    """Decides for one execution of a run whether it sends secrets.

    A secret is refused where payloads are not encrypted, which is something that a run does. It must do the same on
    replay, also after keys were added or where the history is read without them. The first secret decides for the
    execution: a marker in the history says that payloads were encrypted.
    """

    def __init__(self) -> None:
        self._are_sent: bool | None = None

    def are_sent(self) -> bool:
        """Return whether payloads are encrypted; to be called only when there is a secret to send."""
        if self._are_sent is None:
            is_there = workflow.unsafe.is_replaying() or IS_ENCRYPTED in workflow.extern_functions()
            self._are_sent = is_there and workflow.patched(SECRETS_ARE_SENT)
        return self._are_sent
