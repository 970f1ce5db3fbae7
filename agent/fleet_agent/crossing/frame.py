"""How the front and its own worker put a message on the socket between them. PURE.

A frame is `<count of buffers><their lengths><pickle><buffers>`: pickle protocol 5 with the arrays' memory beside it,
so that a tensor is copied into the socket and out of it and nowhere else. What the front reads was written by a
process that runs the user's code, so only plain data and arrays are accepted there: nothing in a frame can name
a class or a function of its choice.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

_HEAD = struct.Struct("<IQ")  # number of buffers, length of the pickle
_LENGTH = struct.Struct("<Q")

# What pickle needs to rebuild arrays, by numpy's old and new module names.
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"{core}.{module}", name) for core in ("numpy.core", "numpy._core") for module, name in (
        ("numeric", "_frombuffer"),
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
    )),
    ("_codecs", "encode"),
}  # fmt: skip


class ForeignObject(pickle.UnpicklingError):
    """A frame holds something other than plain data and arrays."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ForeignObject(f"{module}.{name} is neither plain data nor an array")
        return super().find_class(module, name)


def encode(message: object) -> list[bytes | memoryview]:
    """The frame of a message, in pieces to be written one after the other."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raws = [buffer.raw() for buffer in buffers]
    lengths = b"".join(_LENGTH.pack(raw.nbytes) for raw in raws)
    return [_HEAD.pack(len(raws), len(body)) + lengths + body, *raws]


class Decoder:
    """Bytes in, whole messages out. `trusting`: the other side may send what it likes, as the front may."""

    def __init__(self, trusting: bool = False) -> None:
        self._pending = bytearray()
        self._unpickler = pickle.Unpickler if trusting else _Plain

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are whole now. Raises ForeignObject or UnpicklingError for a frame that isn't ours."""
        self._pending += data
        messages: list[Any] = []
        while (length := self._frame_length()) is not None and len(self._pending) >= length:
            frame = self._pending[:length]
            del self._pending[:length]
            messages.append(_decode(frame, self._unpickler))
        return messages

    def _frame_length(self) -> int | None:
        if len(self._pending) < _HEAD.size:
            return None
        count: int
        body: int
        count, body = _HEAD.unpack_from(self._pending)
        table = _HEAD.size + count * _LENGTH.size
        if len(self._pending) < table:
            return None
        lengths = [_LENGTH.unpack_from(self._pending, _HEAD.size + i * _LENGTH.size)[0] for i in range(count)]
        return table + body + sum(int(length) for length in lengths)


def _decode(frame: bytearray, unpickler: type[pickle.Unpickler]) -> Any:
    """The arrays of the message share the frame's memory, which is theirs alone, so they can be written to."""
    count, body = _HEAD.unpack_from(frame)
    lengths = [_LENGTH.unpack_from(frame, _HEAD.size + i * _LENGTH.size)[0] for i in range(count)]
    view = memoryview(frame)
    at = _HEAD.size + count * _LENGTH.size
    pickled = view[at : at + body]
    at += body
    buffers: list[memoryview] = []
    for length in lengths:
        buffers.append(view[at : at + length])
        at += length
    return unpickler(io.BytesIO(pickled), buffers=buffers).load()
