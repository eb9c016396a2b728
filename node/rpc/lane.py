"""What waits for one peer, within bounds of number, bytes and age."""

from collections import deque


class Lane:
    """Frames in their order. When it is full the oldest goes; whoever sent it copes with loss.

    Nothing leaves later than `age_ms_max` after it was put here: a heartbeat or a vote from before
    a long silence tells nothing any more, and a command might overtake what came after it.
    """

    __slots__ = ("_age_ms_max", "_bytes_max", "_frames", "_frames_max", "bytes", "dropped")

    def __init__(self, frames_max: int, bytes_max: int, age_ms_max: float) -> None:
        self._frames_max = frames_max
        self._bytes_max = bytes_max
        self._age_ms_max = age_ms_max
        self._frames: deque[tuple[float, bytes]] = deque()
        self.bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frame: bytes, mono_ms: float) -> None:
        """Put a frame at the end. One that is larger than the whole lane is dropped itself."""
        if len(frame) > self._bytes_max:
            self.dropped += 1
            return
        frames = self._frames
        frames.append((mono_ms, frame))
        self.bytes += len(frame)
        too_old_ms = mono_ms - self._age_ms_max
        while (
            self.bytes > self._bytes_max
            or len(frames) > self._frames_max
            or frames[0][0] < too_old_ms
        ):
            self._drop()

    def pop(self, mono_ms: float) -> bytes | None:
        """The oldest frame that is not too old, or None."""
        too_old_ms = mono_ms - self._age_ms_max
        frames = self._frames
        while frames:
            if frames[0][0] >= too_old_ms:
                _, frame = frames.popleft()
                self.bytes -= len(frame)
                return frame
            self._drop()
        return None

    def clear(self) -> None:
        """Drop everything."""
        while self._frames:
            self._drop()

    def _drop(self) -> None:
        _, frame = self._frames.popleft()
        self.bytes -= len(frame)
        self.dropped += 1
