"""Where fetched files lie."""

from __future__ import annotations

import os
from enum import Enum
from hashlib import sha256
from pathlib import Path

ENVIRONMENT_VARIABLE = "QBENCH_DOWNLOADS"


def downloads_folder() -> Path:
    """Return ``$QBENCH_DOWNLOADS``, else a folder in the user's cache."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("qbench") / "downloads"


def torch_hub_folder() -> Path:
    """Return where ``torch.hub`` keeps checkpoints, and so every library that fetches with it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


class Home(Enum):
    """Whose folder a file is kept in: a library that knows a file should find it where it looks itself."""

    DOWNLOADS = "qbench"
    TORCH_HUB = "torch.hub"
    CLIP = "open_clip"

    @property
    def folder(self) -> Path:
        """The folder, which need not exist."""
        if self is Home.TORCH_HUB:
            return torch_hub_folder()
        return downloads_folder() if self is Home.DOWNLOADS else Path("~/.cache/clip").expanduser()


def about_file(what: str, path: Path) -> Path:
    """Return where qbench keeps something about a file that may lie in another library's folder.

    Args:
        what: the kind of thing, a folder's name.
        path: the file.
    """
    name = sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    return downloads_folder() / what / name
