"""The private channel of the classes whose names say ZMQ: the same frames, over ZeroMQ.

    pool                                                         worker
    ZmqNear: PAIR, bound  <--- ipc://, one pair a worker --------> PAIR, connected: ZmqFar
             end of a pipe --- closes when the pool does --------> its other end, polled with the socket

A socket is bound in a new private folder (0700). On Linux both are gone before the worker starts: it connects through a
descriptor of the socket's file that it inherits, so no other process finds a way in, and nothing is left behind even
by SIGKILL. ZeroMQ tells neither side that the other is gone: here the pipe does, there the worker's sentinel.

The life of one message:

1.  ``send`` hands it to ZeroMQ, whose own thread writes it; while a worker has not connected it waits here.
2.  The receiver takes whole messages only. Both sides hold a few at most, then the sender waits.
3.  The last word of a worker (END or ERROR) is answered, since what ZeroMQ's thread has not yet written would be
    lost if the worker left.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from typing import Any

from ..errors import UsageError
from ..utils.deps import need
from .channel import Far, milliseconds
from .crew import Kind
from .descriptors import Descriptor, make_sure_of, pipe
from .frames import Frame, frame_of, parts_of
from .worker import HungUp

# Messages that one side holds for the other before it waits.
HIGH_WATER = 4
# How much is taken before the other workers have their turn: so many messages, or bytes and the rest of a message.
ROUND, ROUND_BYTES = 64, 1 << 16
# A socket's path can have 107 bytes; what we add to that of a folder are "/dataflow-12345678/0".
LONGEST = 107 - 21
PREFIX = "dataflow-"
FOLDERS = ("DATAFLOW_PIPEDIR", "TENSORPACK_PIPEDIR")
# Whether a socket can be reached by a descriptor of its file.
BY_DESCRIPTOR = sys.platform == "linux"
# Descriptors that a pool opens in all, and for each worker: with its pipe, its process and what a start takes.
AT_FIRST, PER_WORKER = 16, 6


class ZmqWire:
    """Makes pairs of sockets, one a worker."""

    def __init__(self, workers: int) -> None:
        self._near: list[ZmqNear] = []
        self._folders: list[str] = []
        make_sure_of(AT_FIRST + PER_WORKER * workers)  # it aborts the process where it cannot open one
        with _os_errors():
            self._context = _zmq().Context()

    def poll(self) -> ZmqPoll:
        return ZmqPoll()

    def pair(self) -> tuple[ZmqNear, ZmqEnd]:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=_parent_folder())
        self._folders.append(folder)
        file = os.path.join(folder, "0")
        reader, writer = pipe()
        with _os_errors():
            near = ZmqNear(_socket(self._context), writer)
            self._near.append(near)
            near.key.bind(b"ipc://" + os.fsencode(file))
        if not BY_DESCRIPTOR:
            return near, ZmqEnd(file, reader)
        socket = Descriptor(os.open(file, os.O_PATH))
        self._remove_folders()
        return near, ZmqEnd(f"/proc/self/fd/{socket.fileno()}", reader, socket)

    def _remove_folders(self) -> None:
        while self._folders:
            shutil.rmtree(self._folders.pop(), ignore_errors=True)

    def close(self) -> None:
        for near in self._near:
            near.close()
        self._context.destroy(linger=0)
        self._remove_folders()


class ZmqNear:
    """The pool's end."""

    ended = False

    def __init__(self, sock: Any, writer: Descriptor) -> None:
        self.key = sock
        self._writer = writer
        self._outbox: deque[bytes] = deque()

    @property
    def waiting(self) -> bool:
        return bool(self._outbox)

    def send(self, frame: Frame) -> None:
        message = _packed(frame)
        if self._outbox or not _send(self.key, message):
            self._outbox.append(message)

    def flush(self) -> bool:
        while self._outbox and _send(self.key, self._outbox[0]):
            self._outbox.popleft()
        return not self._outbox

    def receive(self) -> list[Frame]:
        frames: list[Frame] = []
        size = 0
        while len(frames) < ROUND and size < ROUND_BYTES and (frame := _receive(self.key)) is not None:
            frames.append(frame)
            size += frame.size
        return frames

    def taken(self) -> None:
        self.send(Frame(Kind.END, b""))

    def close(self) -> None:
        self._outbox.clear()
        self._writer.close()
        self.key.close(linger=0)


class ZmqFar:
    """The worker's end."""

    def __init__(self, file: str, hangup: int) -> None:
        make_sure_of(AT_FIRST)
        self._socket = _socket(_zmq().Context())
        self._socket.connect(b"ipc://" + os.fsencode(file))
        self._hangup = hangup
        self._hung_up = select.poll()
        self._hung_up.register(hangup, 0)
        self._polls = {writing: ZmqPoll() for writing in (False, True)}
        for writing, poll in self._polls.items():
            poll.watch(self._socket, writing, reading=not writing)
            poll.watch(hangup)

    def _wait(self, writing: bool) -> bool:
        """Wait until the socket is ready; False if the pool has hung up."""
        return self._hangup not in self._polls[writing].wait(None)

    def send(self, frame: Frame) -> None:
        message = _packed(frame)
        if self._hung_up.poll(0):  # or what it has been sent by then would be worked through, for nobody
            raise HungUp
        while not _send(self._socket, message):
            if not self._wait(writing=True):
                raise HungUp

    def receive(self, wait: bool = True) -> Frame | None:
        while (frame := _receive(self._socket)) is None:
            if not wait or not self._wait(writing=False):
                return None
        return frame

    def finish(self) -> None:
        """Return when the pool has what was sent, or does not want it any more."""
        while (frame := self.receive()) is not None and frame.kind is not Kind.END:
            pass


class ZmqEnd:
    """The far end before its worker runs."""

    def __init__(self, file: str, hangup: Descriptor, *others: Descriptor) -> None:
        self.descriptors: tuple[Descriptor, ...] = (hangup, *others)
        self._file = file

    def recipe(self) -> tuple[Any, ...]:
        return ("zmq", self._file, self.descriptors[0].fileno())

    def open(self) -> Far:
        return ZmqFar(self._file, self.descriptors[0].fileno())


class ZmqPoll:
    """Wait for ZeroMQ's sockets and for descriptors together."""

    def __init__(self) -> None:
        self._zmq = _zmq()
        self._poller = self._zmq.Poller()

    def watch(self, key: Any, writing: bool = False, reading: bool = True) -> None:
        self._poller.register(key, reading * self._zmq.POLLIN | writing * self._zmq.POLLOUT)

    def forget(self, key: Any) -> None:
        self._poller.unregister(key)

    def wait(self, timeout: float | None) -> list[Any]:
        return [key for key, _ in self._poller.poll(None if timeout is None else milliseconds(timeout))]


@functools.cache
def _zmq() -> Any:
    return need("zmq", by="a class with ZMQ in its name")


def _socket(context: Any) -> Any:
    zmq = _zmq()
    sock = context.socket(zmq.PAIR)
    sock.set_hwm(HIGH_WATER)
    sock.linger = 0
    return sock


def _packed(frame: Frame) -> bytes:
    """Return a frame as one part. Between two of them, ZeroMQ would abort this process if the other one is killed."""
    return b"".join(parts_of(frame))


def _send(sock: Any, message: bytes) -> bool:
    """Send a copy; False if that would block."""
    zmq = _zmq()
    try:
        sock.send(message, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


def _receive(sock: Any) -> Frame | None:
    zmq = _zmq()
    try:
        # Copied: as pyzmq frees a frame of ZeroMQ, it may swallow Ctrl-C.
        return frame_of(sock.recv(zmq.DONTWAIT))
    except zmq.Again:
        return None


def _parent_folder() -> str:
    """Return where to put a socket: its path must be short enough."""
    asked = next((os.environ[name] for name in FOLDERS if os.environ.get(name)), None)
    parent = asked or tempfile.gettempdir()
    if len(os.fsencode(parent)) <= LONGEST:
        return parent
    if asked:
        raise UsageError(f"the folder of the sockets has a path of more than {LONGEST} bytes: {asked!r}")
    return "/tmp"


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Raise ZeroMQ's errors as the OSError that they are."""
    try:
        yield
    except _zmq().ZMQError as error:
        raise OSError(error.errno, error.strerror) from error
