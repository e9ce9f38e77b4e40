"""Captions in a file of one's own: a line each in a .txt, or a column ``caption`` in a .tsv or .csv."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qbench.errors import DataError
from qbench.identity import digest

MOST_CHARACTERS = 10_000
MOST_WORDS = 1_000
"""More than these are no caption but a slip: text encoders see 77 tokens."""
CAPTION = "caption"
FILE_NAME = "file_name"
DELIMITERS = {".tsv": "\t", ".csv": ","}


@dataclass(frozen=True)
class CaptionList:
    """Captions in a fixed order.

    Attributes:
        name: what they are.
        captions: the texts.
        files: names of the image files that they are of, where that is known.
    """

    name: str
    captions: tuple[str, ...]
    files: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def digest(self) -> str:
        """SHA-256 of the texts and their order, 64 hexadecimal digits."""
        return digest({"captions": self.captions})

    def at(self, indices: Sequence[int], again: bool = False) -> list[str]:
        """Return the captions of some samples.

        Args:
            indices: of the samples.
            again: begin anew behind the last one, as calibration may: other noise makes another image.

        Raises:
            DataError: there are too few.
        """
        if again:
            return [self.captions[index % len(self.captions)] for index in indices]
        asked = max(indices, default=-1) + 1
        if asked > len(self.captions):
            raise DataError(
                f"{self.name} are {len(self.captions):,} captions, and {asked:,} samples are asked for: ask for "
                f"{len(self.captions):,} at most"
            )
        return [self.captions[index] for index in indices]


def read_captions(path: Path) -> CaptionList:
    """Read captions in UTF-8.

    Args:
        path: a .txt with one caption a line; or a .tsv or .csv with a header that names a column ``caption``, and
            ``file_name`` if their images are known, quoted as spreadsheets do it.

    Raises:
        DataError: the file is missing, of another kind, empty or not UTF-8; or a line is empty, too long, not laid out
            as the header says, or holds a control character.
    """
    if path.suffix.lower() not in (".txt", *DELIMITERS):
        raise DataError(
            f"{path} is no file of captions: a .txt with one a line is, or a .tsv or .csv with a column {CAPTION!r}"
        )
    text = _text(path)
    if path.suffix.lower() == ".txt":
        lines = text.removesuffix("\n").split("\n") if text else []
        captions = tuple(_checked(line.removesuffix("\r"), path, number) for number, line in enumerate(lines, 1))
        files = None
    else:
        captions, files = _columns(text, path)
    if not captions:
        raise DataError(f"{path} holds no captions")
    return CaptionList(path.stem, captions, files)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: this is not UTF-8: save the file in that encoding") from error


def _columns(text: str, path: Path) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[path.suffix.lower()], strict=True)
    captions: list[str] = []
    files: list[str] = []
    try:
        header = next(rows, [])
        if CAPTION not in header:
            raise DataError(f"{path} has no column {CAPTION!r}: its first line names {', '.join(header) or 'nothing'}")
        for row in rows:
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {rows.line_num}: {len(row)} columns are there, and the first line names "
                    f"{len(header)}"
                )
            captions.append(_checked(row[header.index(CAPTION)], path, rows.line_num))
            if FILE_NAME in header:
                files.append(row[header.index(FILE_NAME)])
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: this is no row of a table ({error})") from error
    return tuple(captions), tuple(files) if files else None


def _checked(caption: str, path: Path, line: int) -> str:
    place = f"{path}, line {line}"
    if not caption.strip():
        raise DataError(f"{place}: there is no caption: delete the line, or write one")
    for character in caption:
        # Cc are the control characters, NUL and tabs among them; Zl and Zp end a line or a paragraph.
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise DataError(f"{place}: the caption holds the control character U+{ord(character):04X}: delete it")
    if len(caption) > MOST_CHARACTERS or len(caption.split()) > MOST_WORDS:
        raise DataError(
            f"{place}: the caption has {len(caption.split()):,} words in {len(caption):,} characters: at most "
            f"{MOST_WORDS:,} words and {MOST_CHARACTERS:,} characters are read"
        )
    return caption
