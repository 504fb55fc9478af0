"""Keys of steps: a step's id, and what tells the further uses of an id in one run apart."""

from __future__ import annotations

BODY = "body"
"""Branch of the body itself in keys."""


class Keys:
    """Gives a key to each use of an id, in one attempt of a body.

    The first use has the id for its key. A further use in the same branch of the body is numbered: ``charge:1``,
    ``charge:2``. A use in another branch names that branch, and is numbered there: ``charge@2``, ``charge@2:1``.
    """

    __slots__ = ("_counts", "_first", "_taken")

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._taken: set[str] = set()

    def next(self, id: str, branch: str) -> str:
        """Return the key of the next use of an id.

        Args:
            id: The id.
            branch: The branch that uses it.
        """
        base = id if self._first.setdefault(id, branch) == branch else self.in_branch(id, branch)
        number = self._counts.get(base, 0)
        while (key := f"{base}:{number}" if number else base) in self._taken:  # another step has that very id
            number += 1
        self._counts[base] = number + 1
        self._taken.add(key)
        return key

    @staticmethod
    def in_branch(id: str, branch: str) -> str:
        """Return the key of the first use of an id in another branch than the first."""
        return f"{id}@{branch or BODY}"

    def is_first(self, key: str) -> bool:
        """Return whether a key is that of the first use of an id."""
        return key in self._first

    def instead(self, id: str, owner: str, branch: str) -> str:
        """Return another key for the first use of an id, as another branch has used the id before.

        Args:
            id: The id.
            owner: The branch that the key of the first use belongs to.
            branch: The branch that has just been given that key.
        """
        self._taken.discard(id)
        self._counts[id] = 0
        self._first[id] = owner
        return self.next(id, branch)
