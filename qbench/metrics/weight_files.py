"""Weight files that others published: found where they were kept before, else fetched, and never used unverified."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from qbench.errors import DataError
from qbench.identity import file_digest


@dataclass(frozen=True)
class WeightFile:
    """A file that was published.

    Attributes:
        url: where.
        digest: its SHA-256, 64 hexadecimal digits or as many of the first ones as were published.
    """

    url: str
    digest: str

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.url.rsplit("/", 1)[-1]

    def is_it(self, digest: str) -> bool:
        """Return whether a SHA-256 is that of this file."""
        return digest.startswith(self.digest)


def checkpoint_folder() -> Path:
    """Return where ``torch.hub`` keeps checkpoints, and so every library that fetches with it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def weight_path(file: WeightFile) -> Path:
    """Return the path of a file in the checkpoint folder, after fetching it if it is not there.

    Raises:
        DataError: what is there is another file, such as the first part of it; or it is not there and cannot be
            fetched.
    """
    path = checkpoint_folder() / file.name
    if not path.exists():
        _fetch(file, path)
    found = file_digest(path)
    if not file.is_it(found):
        raise DataError(
            f"{path} is damaged or another file: its SHA-256 begins with {found[: len(file.digest)]} and not with "
            f"{file.digest}; delete it, and it is fetched anew"
        )
    return path


def _fetch(file: WeightFile, path: Path) -> None:
    """Fetch a file; it is written aside, and gets its name when its digest is right."""
    from http.client import HTTPException

    from torch.hub import download_url_to_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(file.url, str(path), hash_prefix=file.digest, progress=False)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DataError(
            f"{path} is missing and cannot be fetched from {file.url} ({reason}): put the file there"
        ) from error
    except RuntimeError as error:  # torch.hub's word for a wrong digest
        raise DataError(
            f"{path} is missing, and what {file.url} gives is another file or not all of it ({error}): try again, or "
            "put the file there"
        ) from error
