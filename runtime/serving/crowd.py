"""The open connections of a server, so that none can keep the others out."""

from __future__ import annotations

from typing import Protocol


class Member(Protocol):
    """A connection."""

    def abort(self) -> None:
        """End it at once, whatever its client does."""


class Crowd:
    """Connections, and which of them wait for their clients.

    A connection waits while its client sends no request, is not done with sending one, or does not read its answer.
    Where there is no room for a new one, the one that waits the longest goes: clients that ask and read never wait
    for long.

    Args:
        most: connections at the same time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.members: set[Member] = set()
        self.waiting: dict[Member, None] = {}

    def enter(self, member: Member) -> None:
        """Take a connection, which waits for its client, and end another one, or this one, if there are too many."""
        self.members.add(member)
        if len(self.members) > self.most:
            longest = next(iter(self.waiting), member)
            self.leave(longest)
            longest.abort()
            if longest is member:
                return
        self.waiting[member] = None

    def wait(self, member: Member) -> None:
        """Note that a connection waits for its client from now on."""
        if member in self.members:
            self.waiting.pop(member, None)
            self.waiting[member] = None

    def work(self, member: Member) -> None:
        """Note that the server's answer is due, so that the connection is not ended for others."""
        self.waiting.pop(member, None)

    def leave(self, member: Member) -> None:
        """Forget a connection."""
        self.members.discard(member)
        self.waiting.pop(member, None)
