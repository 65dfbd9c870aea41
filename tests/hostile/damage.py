"""Ways to break a file, each drawn from a generator of random numbers with a fixed seed."""

from __future__ import annotations

import copy
import functools
import gzip
import io
import itertools
import json
import math
import os
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SESSION = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"


class Order:
    """Pickles as a command of a shell."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


#: Values of a wrong type or range.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, math.nan, math.inf, 10**30, -(2**63), [], {}, [[]], {"a": {"b": {}}}),
    *("", "\x1b]0;owned\x07\n", "\u202e", "\0", "x" * 100_000, "9" * 5000),
)

#: Texts that leave the folder, start a program or call a host, where somebody lets them.
ORDERS = (
    *("../outside.png", "/dev/zero", "pipe:touch owned", "file:../outside.png", "$(touch owned)"),
    *("http://127.0.0.1:9/x.tar", "hf-hub:a/b", "__import__('os').system('touch owned')"),
)


def broken_bytes(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield about fifty names of damages with the damaged content."""
    for share in (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        yield f"cut at {share}", content[: int(share * len(content))]
    yield "a byte short", content[:-1]
    for number in range(10):
        yield f"a flipped bit {number}", _flipped(content, chance, 1)
    for number in range(4):
        yield f"a hundred flipped bits {number}", _flipped(content, chance, 100)
    for number in range(5):
        start = chance.randrange(len(content))
        size = min(chance.choice((8, 64, 512, 4096)), len(content) - start)
        yield f"a zeroed block {number}", content[:start] + bytes(size) + content[start + size :]
        yield f"a random block {number}", content[:start] + chance.randbytes(size) + content[start + size :]
        yield f"a lost block {number}", content[:start] + content[start + size :]
    for number in range(6):  # most headers are at the start
        start = chance.randrange(min(len(content), 512))
        lie = chance.choice((b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0\0\0\x80"))
        yield f"a lie about a size {number}", content[:start] + lie + content[start + len(lie) :]
    yield "twice", content * 2
    yield "halves swapped", content[len(content) // 2 :] + content[: len(content) // 2]
    yield "packed by gzip", gzip.compress(content)
    yield "packed by zip", _archive({"file": content}, zipfile.ZIP_DEFLATED)
    yield "zeros", bytes(4096)
    yield "random bytes", chance.randbytes(4096)
    yield "text", b"<!DOCTYPE html><title>404 Not Found</title>"
    yield "a pickle that calls", pickle.dumps(Order())
    yield "an archive whose pickle calls", _torch_archive(pickle.dumps(Order(), 2))
    yield "an archive that inflates", _bomb()
    yield "a session description", SESSION
    yield "a playlist", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"
    yield "a list of files", b"ffconcat version 1.0\nfile ../outside.png\n"


def broken_values(fields: Any, chance: random.Random, count: int = 60) -> Iterator[tuple[str, Any]]:
    """Yield names of damages with a file's fields, of which one is another, missing, or an order."""
    for number in range(count):
        damaged = copy.deepcopy(fields)
        holder, key = chance.choice(list(_places(damaged)))
        if number % 6 == 5:
            del holder[key]
            yield f"{number}: without {key!r}", damaged
        else:
            holder[key] = chance.choice(VALUES)
            yield f"{number}: {key!r} is {str(holder[key])[:30]!r}", damaged
    for number, (holder, key) in enumerate(_places(fields)):
        for order in ORDERS if isinstance(holder[key], str) else ():
            damaged = copy.deepcopy(fields)
            place = next(itertools.islice(_places(damaged), number, None))
            place[0][place[1]] = order
            yield f"{key!r} is {order!r}", damaged


def broken_json(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield names of damages with JSON of which a value is replaced or missing, and what is hard to parse."""
    for name, fields in broken_values(json.loads(content), chance):
        yield name, json.dumps(fields).encode()
    yield "nested", b"[" * 100_000
    yield "an object in objects", b'{"a":' * 100_000
    yield "a long number", b"9" * 5000


def broken_yaml(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield the same of YAML, and aliases that expand."""
    import yaml

    for name, fields in broken_values(yaml.safe_load(content), chance):
        yield name, yaml.safe_dump(fields).encode()
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    yield "aliases", "\n".join(levels).encode()
    yield "an alias of itself", b"a: &a [*a]"
    yield "a call", b"a: !!python/object/apply:os.system ['touch owned']"
    yield "nested", b"[" * 5000


def lying_png(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield PNG files whose header promises other sizes, and whose attributes inflate; all sums are right."""
    sides = (0, 1, 2**16, 2**24, 2**31 - 1, 2**32 - 1)
    for width, height in itertools.product(sides, sides):
        header = struct.pack(">II", width, height) + content[24:29]
        yield f"{width} x {height} pixels", content[:8] + _chunk(b"IHDR", header) + content[33:]
    bomb = zlib.compress(bytes(2**27), level=1)
    for name, data in (
        (b"zTXt", b"x\0\0" + bomb),
        (b"iCCP", b"x\0\0" + bomb),
        (b"iTXt", b"x\0\1\0\0\0" + bomb),
    ):
        yield f"{name.decode()} that inflates", content[:33] + _chunk(name, data) + content[33:]
    yield "a hundred thousand chunks", content[:33] + _chunk(b"tEXt", b"x\0y") * 100_000 + content[33:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def lying_pickle(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield torch archives whose pickle is damaged, with right check sums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = [name for name in members if name.endswith("/data.pkl")]
    program = members[pickled]
    numbers = [place for place in range(len(program) - 2) if program[place] == ord("K")]  # of one byte
    for number in range(60):
        place = chance.choice(numbers)
        lie = chance.choice(
            (
                b"J\xff\xff\xff\x7f",
                b"J\xff\xff\xff\xff",
                b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
                b"N",
                b"]",
                b"K\0",
            )
        )
        lied = program[:place] + lie + program[place + 2 :]
        damaged = _flipped(program, chance, 1) if number % 3 == 2 else lied
        yield f"{number}: {lie!r} at {place}", _archive({**members, pickled: damaged})
    yield "deep", _archive({**members, pickled: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."})


def lying_safetensors(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield safetensors files with a damaged header of the right length."""
    (length,) = struct.unpack("<Q", content[:8])
    for name, fields in broken_values(json.loads(content[8 : 8 + length]), chance):
        header = json.dumps(fields).encode()
        yield name, struct.pack("<Q", len(header)) + header + content[8 + length :]


def lying_tar(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield tar files of which one header, with the right check sum, is another."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = tar.getmembers()
    names = (
        "../outside.png",
        "/etc/passwd",
        "\x1b[2J.png",
        "x" * 90,
        ".",
        "a/",
        "__x__",
        "0.cls",
        "\udcff.png",
    )
    lies: dict[str, tuple[Any, ...]] = {
        "size": (0, 1, 511, 2**20, 2**32, 2**62),
        "type": (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"K", b"L", b"x", b"g", b"V", b"\xff"),
        "name": names,
        "mtime": (-1, 2**40),
    }
    for field, values in lies.items():
        for value in values:
            for member in chance.sample(members, 2):
                liar = copy.copy(member)
                setattr(liar, field, value)
                header = liar.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")[-tarfile.BLOCKSIZE :]
                start = member.offset_data - tarfile.BLOCKSIZE
                yield (
                    f"{field} {value!r} of {member.name}",
                    content[:start] + header + content[member.offset_data :],
                )


def _archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


#: What may lie under a file's name.
SPECIALS = ("a pipe", "a link to a device", "a folder", "a link to nothing", "a link to itself", "a terabyte")


def make_special(path: Path, kind: str) -> None:
    """Put something that is no ordinary file under a name that is free."""
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a link to a device":
            path.symlink_to("/dev/zero")
        case "a folder":
            path.mkdir()
        case "a link to nothing":
            path.symlink_to("nothing")
        case "a link to itself":
            path.symlink_to(path.name)
        case "a terabyte":
            path.touch()
            os.truncate(path, 2**40)


def _flipped(content: bytes, chance: random.Random, count: int) -> bytes:
    damaged = bytearray(content)
    for _ in range(count):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


@functools.cache
def _bomb() -> bytes:
    return _torch_archive(bytes(2**27), zipfile.ZIP_DEFLATED)


def _torch_archive(program: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive as torch.save writes it, around any pickle."""
    members = {"archive/data.pkl": program, "archive/version": b"3\n", "archive/byteorder": b"little"}
    return _archive(members, compression)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in nested values: what holds it, and the key or index there."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
