"""State that a run takes over from the run that it repeats, or from its own history."""

from __future__ import annotations

from ..wire.run_state import RunState


class Takeover:
    """State of another run that this one goes on from; empty for most runs.

    Attributes:
        until: Time on the body's clock until which the other run did what this one goes on from; -1 without another.
        moved_by: Microseconds by which that was earlier; None until it is known.
        reruns: Ids of the runs of which this one is a rerun, as :attr:`.run.Run.own_ids` lists those of this run.
        reopens: Listeners of the other run that this run has to subscribe for itself.
        mailboxes: Mailboxes that a recovery has found to be chosen for signals to send, by step.
    """

    def __init__(self) -> None:
        self.until: int = -1
        self.moved_by: int | None = None
        self.reruns: list[list[str]] = []
        self.reopens: dict[str, None] = {}
        self.mailboxes: dict[str, str] = {}

    def restore(self, carried: RunState) -> None:
        """Take over the state that an earlier execution handed over."""
        self.until = carried.taken_over_until
        self.moved_by = carried.moved_by
        self.reruns = carried.reruns
        self.reopens = dict.fromkeys(carried.reopens)
        self.mailboxes = carried.mailboxes
