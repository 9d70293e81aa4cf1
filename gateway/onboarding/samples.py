"""A folder of sample messages as a hospital hands it over: files of one message or many, batches, images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway import hl7v2
from gateway.errors import Category, GatewayError, sentence_of

#: A larger file is no sample; reading it whole would be.
_LARGEST = 256 * 1024 * 1024
_HIDDEN = (".", "~$")


@dataclass(frozen=True, slots=True)
class Sample:
    """One message as sent, and where it was found."""

    path: Path
    number: int  # of the message in its file, from 1
    raw: bytes

    @property
    def where(self) -> str:
        """The file, and which message of it."""
        return f"{self.path.name}:{self.number}"


@dataclass(slots=True)
class Samples:
    """What a folder held. ``left``: why a file or a piece of one is not among the messages → how many."""

    messages: list[Sample] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


def read(paths: Iterable[Path], progress: Callable[[Path], None] = lambda path: None) -> Samples:
    """Every message and image in files and folders, in order of name; NOT_FOUND when there is none at all.

    A message that is there twice, byte by byte, counts once. ``progress`` is told each file.
    """
    found, seen = Samples(), set()
    for path in _files(paths):
        progress(path)
        try:
            if path.stat().st_size > _LARGEST:
                found.left["files larger than 256 MiB: split them"] += 1
                continue
            content = path.read_bytes()
        except OSError as error:
            found.left[f"files that cannot be read: {sentence_of(error).partition(':')[0]}"] += 1
            continue
        if content[128:132] == b"DICM" or path.name.endswith(".dcm.json"):
            found.images.append(path)
            continue
        if b"MSH" not in content and b"M\0S\0H" not in content:
            found.left["files without an MSH segment"] += 1
            continue
        for number, raw in enumerate(hl7v2.split(content), 1):
            if raw in seen:
                found.left["messages that are there twice"] += 1
            elif raw[:3].upper() != b"MSH":
                found.left["pieces that do not begin with MSH: cut away what stands before"] += 1
            else:
                seen.add(raw)
                found.messages.append(Sample(path, number, raw))
    if not found.messages and not found.images:
        raise GatewayError(Category.NOT_FOUND, "there is no HL7 v2 message and no DICOM object there"
                           + (f" ({_counted(found.left)})" if found.left else ""))
    return found


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        yield from (p for p in inside if not p.name.startswith(_HIDDEN))


def _counted(left: Counter[str]) -> str:
    return "; ".join(f"{count} {what}" for what, count in left.most_common())
