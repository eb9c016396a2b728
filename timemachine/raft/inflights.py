"""The window of appends that are on their way to one follower."""


class Inflights:
    """What was sent to a follower and not acknowledged yet, oldest first.

    Bounded in messages, and in bytes of entries (dissertation 10.2.1): the leader need not wait
    for each answer, but a follower that does not answer cannot make it send without end.

    Invariants:
    1. Indexes do not fall from the oldest to the newest message.
    2. `count() <= size`.
    3. `_bytes` is the sum of the sizes in the window. It is below `bytes_max` unless the newest
       message crossed that line: a message larger than the limit must be sendable.
    """

    __slots__ = ("_bytes", "_indexes", "_sizes", "bytes_max", "size")

    def __init__(self, size: int, bytes_max: int = 0) -> None:
        """At most `size` messages; `bytes_max` bytes, or any number of them if it is 0."""
        self.size = size
        self.bytes_max = bytes_max
        self._indexes: list[int] = []
        self._sizes: list[int] = []
        self._bytes = 0

    def add(self, index: int, size: int) -> None:
        """A message with entries up to `index`, `size` bytes of them, was sent.

        Only while the window is not full, and with no smaller index than the last one.
        """
        assert not self.full(), "the window is full"
        assert not self._indexes or index >= self._indexes[-1], f"index {index} falls"
        self._indexes.append(index)
        self._sizes.append(size)
        self._bytes += size

    def free_le(self, index: int) -> None:
        """The follower answered for everything up to and including `index`."""
        count = 0
        for sent in self._indexes:
            if sent > index:
                break
            count += 1
        if count:
            self._bytes -= sum(self._sizes[:count])
            del self._indexes[:count]
            del self._sizes[:count]

    def full(self) -> bool:
        """Whether nothing more may be sent now."""
        return len(self._indexes) >= self.size or 0 < self.bytes_max <= self._bytes

    def count(self) -> int:
        """How many messages are on their way."""
        return len(self._indexes)

    def reset(self) -> None:
        """Forget all of them."""
        if self._indexes:
            self._indexes.clear()
            self._sizes.clear()
            self._bytes = 0
