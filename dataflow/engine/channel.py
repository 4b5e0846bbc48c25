"""The private channel between a pool and one worker process: frames over a socketpair.

    pool (near end, never blocks)                              worker (far end, blocks)
    send  --> [outbox, when the socket is full] --> socket --> receive --> inbox of Task.run
    receive <-- Reader <--------------------------- socket <-- send

The life of one frame:

1.  A message is pickled; arrays of 2 KiB and more are left out, as views of their memory.
2.  Header, sizes, pickle and arrays leave in one ``sendmsg``, from where they lie. What the socket does not take at
    once is copied into the outbox, so the sender may go on to use its memory.
3.  The reader takes what is there in one ``recv``. Small frames are cut out of a buffer that is used again; the rest
    of a large one is received into memory of its own, part by part, and no byte is moved twice.
4.  The arrays of the copy lie in that memory, each in its own: to keep one does not keep its neighbours.
5.  End of file is the end of the other side; bytes of an unfinished frame are thrown away.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from typing import Any, Protocol

from .descriptors import Descriptor, make_sure_of, register
from .frames import PARTS, Bytes, Frame, Reader, behind, parts_of
from .worker import HungUp

# What is asked of the kernel for one direction; it gives what /proc/sys/net/core/wmem_max allows.
SOCKET_BYTES = 4 << 20
# Descriptors that a pool keeps open for a worker: of its channel and of its process.
PER_WORKER = 2
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class Near(Protocol):
    """The pool's end of a channel. None of its methods blocks."""

    ended: bool

    @property
    def key(self) -> Any:
        """What a Poll is told to watch."""

    @property
    def waiting(self) -> bool:
        """True while something is left to be sent."""

    def send(self, frame: Frame) -> None: ...
    def flush(self) -> bool: ...
    def receive(self) -> list[Frame]: ...
    def taken(self) -> None: ...
    def close(self) -> None: ...


class Far(Protocol):
    """The worker's end of a channel. It blocks, unless asked not to; ``send`` raises HungUp when the pool is gone."""

    def send(self, frame: Frame) -> None: ...
    def receive(self, wait: bool = True) -> Frame | None: ...
    def finish(self) -> None: ...


class End(Protocol):
    """The far end before its worker runs: what must be inherited, and how to open it there."""

    descriptors: tuple[Descriptor, ...]

    def recipe(self) -> tuple[Any, ...]: ...
    def open(self) -> Far: ...


class Wire(Protocol):
    """Makes the channels of one pool."""

    def poll(self) -> Any: ...
    def pair(self) -> tuple[Near, End]: ...
    def close(self) -> None: ...


class SocketNear:
    """The pool's end of a socketpair."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.ended = False
        self._socket = sock
        self._reader = Reader(sock)
        self._outbox: deque[Bytes] = deque()

    @property
    def key(self) -> int:
        return self._socket.fileno()

    @property
    def waiting(self) -> bool:
        return bool(self._outbox)

    def send(self, frame: Frame) -> None:
        parts = parts_of(frame)
        if not self._outbox:
            parts = self._write(parts)
        if parts:
            self._outbox.append(b"".join(parts))

    def flush(self) -> bool:
        """Send what the socket takes; True if nothing is left."""
        self._outbox = deque(self._write(list(self._outbox)))
        return not self._outbox

    def _write(self, parts: list[Bytes]) -> list[Bytes]:
        """Return what the socket did not take."""
        try:
            while parts:
                parts = behind(parts, self._socket.sendmsg(parts[:PARTS], (), NO_SIGNAL))
        except BlockingIOError:
            return parts
        except OSError:  # it is dead, and will be found so where its last words are read
            return []
        return parts

    def receive(self) -> list[Frame]:
        """Return the frames that are complete; none and ``ended`` if there will be no more."""
        try:
            return self._reader.read()
        except BlockingIOError:
            return []
        except (EOFError, OSError):
            self.ended = True
            return []

    def taken(self) -> None:
        """Tell a worker that its last word has arrived; a socket keeps it without that."""

    def close(self) -> None:
        self._outbox.clear()
        self._socket.close()


class SocketFar:
    """The worker's end of a socketpair."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._reader = Reader(self._socket)
        self._frames: deque[Frame] = deque()

    def send(self, frame: Frame) -> None:
        parts = parts_of(frame)
        try:
            while parts:
                parts = behind(parts, self._socket.sendmsg(parts[:PARTS], (), NO_SIGNAL))
        except OSError:
            raise HungUp from None

    def receive(self, wait: bool = True) -> Frame | None:
        """Return the next frame; None if there will be no more, or, without ``wait``, none is there."""
        if not self._frames:
            try:
                self._frames.extend(self._reader.read(0 if wait else socket.MSG_DONTWAIT))
            except (EOFError, OSError):
                return None
        return self._frames.popleft()

    def finish(self) -> None:
        """Return when all that was sent is out of this process: at once."""


class SocketEnd:
    """The far end of a socketpair before its worker runs."""

    def __init__(self, fd: int) -> None:
        self.descriptors: tuple[Descriptor, ...] = (Descriptor(fd),)

    def recipe(self) -> tuple[Any, ...]:
        return ("socket", self.descriptors[0].fileno())

    def open(self) -> Far:
        return SocketFar(self.descriptors[0].fileno())


class SocketWire:
    """Makes socketpairs, one a worker."""

    def __init__(self, workers: int) -> None:
        make_sure_of(PER_WORKER * workers)  # rather than after a start of half of them

    def poll(self) -> Poll:
        return Poll()

    def pair(self) -> tuple[SocketNear, SocketEnd]:
        near, far = socket.socketpair()
        for sock in (near, far):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        register(near)
        return SocketNear(near), SocketEnd(far.detach())

    def close(self) -> None:
        """Free what is not part of a channel: nothing."""


class Poll:
    """Wait for descriptors, without a limit on their numbers and without one of its own."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def watch(self, key: Any, writing: bool = False) -> None:
        """Wait for ``key`` to become readable, or writable too."""
        self._poll.register(key, select.POLLIN | (select.POLLOUT if writing else 0))

    def forget(self, key: Any) -> None:
        self._poll.unregister(key)

    def wait(self, timeout: float | None) -> list[Any]:
        """Return the keys that are ready, or in an error."""
        return [key for key, _ in self._poll.poll(None if timeout is None else milliseconds(timeout))]


def milliseconds(seconds: float) -> int:
    """Round up, so that nobody wakes before the time and asks again."""
    return -int(-seconds * 1000 // 1)
