"""Tar files as a list of byte ranges, so that what is not changed can be copied as it is.

Python's own reader takes a damaged header for the end of the archive and says nothing. Here the bytes after
the last member are looked at: what is no end is a damage, and reading goes on at the next header.
"""

from __future__ import annotations

import copy
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from depthfit.errors import InputError

BLOCK = tarfile.BLOCKSIZE
END = b"\0" * (2 * BLOCK)


@dataclass(frozen=True)
class Member:
    """One member.

    Attributes:
        name: Its path in the archive.
        start: Byte where its (first) header begins; data: where its contents begin; size: of them.
        stop: Byte behind its padding, where the next header begins.
        regular: Whether it is a plain file.
    """

    name: str
    start: int
    data: int
    size: int
    stop: int
    regular: bool = True


def scan(path: Path) -> tuple[list[Member], list[str]]:
    """Members of a tar in order, and one sentence for each damage.

    Raises:
        InputError: The file cannot be opened.
    """
    members: list[Member] = []
    faults: list[str] = []
    try:
        with path.open("rb") as file:
            length = path.stat().st_size
            position = 0
            while position < length or not length:
                found = list(_members(file, position, length))
                members += found
                end = found[-1].stop if found else position
                file.seek(end)
                tail = file.read(len(END))
                if not tail.strip(b"\0"):
                    # A whole archive ends in two zero blocks. With one nothing is lost; with none, who knows.
                    if len(tail) < BLOCK:
                        faults.append(f"byte {end} is not the end of an archive; the file is cut short")
                    break
                position = _next_header(file, end if found else end + BLOCK, length)
                lost = f"bytes {end} to {position} are no tar members"
                faults.append(f"{lost}; the file is cut short or damaged" if position >= length else lost)
    except OSError as error:
        raise InputError(path, "file", f"cannot be read ({error.strerror})", "Check the path.") from error
    return members, faults


def _members(file: BinaryIO, position: int, length: int) -> Iterator[Member]:
    """Members from a position on, up to the end or the first damage."""
    file.seek(position)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                # Links and folders may state a size without having contents; sparse files state another one.
                regular = info.isreg() and not info.issparse()
                stop = archive.offset
                held = info.size if regular else max(stop - info.offset_data, 0)
                if stop <= info.offset or info.size < 0 or info.offset_data + held > length:
                    return
                yield Member(info.name, info.offset, info.offset_data, held, stop, regular)
    except OSError:
        raise
    except Exception:  # a damaged header can raise nearly anything
        # The caller sees it by where the last member ended.
        return


def _next_header(file: BinaryIO, position: int, length: int) -> int:
    """Byte of the next block that is a valid header; the length if there is none."""
    # One block on, as the one at the damage is what could not be read.
    position += BLOCK
    while position < length:
        file.seek(position)
        try:
            tarfile.TarInfo.frombuf(file.read(BLOCK), tarfile.ENCODING, "surrogateescape")
            return position
        except tarfile.HeaderError:
            position += BLOCK
    return length


def read_member(file: BinaryIO, member: Member) -> bytes:
    """Contents of a member of an open tar."""
    file.seek(member.data)
    return file.read(member.size)


def copy_member(source: BinaryIO, member: Member, target: BinaryIO) -> None:
    """Copy a member with its headers and padding, byte by byte."""
    source.seek(member.start)
    left = member.stop - member.start
    while left:
        block = source.read(min(left, 1 << 20))
        if not block:
            # Only the padding of the last member can be missing.
            target.write(b"\0" * left)
            return
        target.write(block)
        left -= len(block)


def write_changed(source: BinaryIO, member: Member, data: bytes, target: BinaryIO) -> None:
    """Write a member with other contents under its own header."""
    source.seek(member.start)
    with tarfile.open(fileobj=source, mode="r:") as archive:
        first = archive.next()
    assert first is not None
    info = copy.copy(first)
    info.size = len(data)
    # The size that a pax header may state would win over the new one.
    info.pax_headers = {k: v for k, v in info.pax_headers.items() if k != "size"}
    target.write(info.tobuf(tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT))
    target.write(data)
    target.write(b"\0" * (-len(data) % BLOCK))


def write_end(target: BinaryIO) -> None:
    """End the archive as tar does: two zero blocks, filled up to a record."""
    target.write(END)
    target.write(b"\0" * (-target.tell() % tarfile.RECORDSIZE))


def copy_file(source: Path, target: Path) -> None:
    """Copy a whole file."""
    with source.open("rb") as a, target.open("wb") as b:
        shutil.copyfileobj(a, b, 1 << 20)


def split_name(name: str) -> tuple[str, str]:
    """(key, ending) of a member as webdataset splits it: at the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()
