"""Every error that a user of qbench can cause, in one tree.

    QbenchError
    ├── SuiteError        a suite file: missing, unreadable, wrong, or contradicting itself
    ├── SettingsError     settings of a plugin that its model refuses
    ├── PluginError       a name nobody offers, two packages that offer one name, a failed import
    ├── DataError         files from outside that are missing or not what they should be
    ├── StoreError        the store cannot be read or written
    │   └── DamagedArtefact   an artefact whose files are not those that were written
    ├── StageError        a stage refuses to give a result (a non-finite image, say)
    ├── ResultsError      a results folder or a record in it
    └── ExportError       a cell that no folder can hold as a pipeline, or a folder that cannot be written

Each message is one sentence that names the place and, where there is one, the way out. Anything that is not
in this tree is a defect of qbench or of a plugin: inside a stage it fails the cells that need the stage, and
everywhere else it surfaces as a traceback.
"""

import errno

REFUSED = {
    errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.EROFS, errno.EIO, errno.ESTALE,
}  # fmt: skip
"""Errors of the system that are about a place, and not about what a program does there."""
LONGEST_NAME = 200


class QbenchError(Exception):
    """Base of all errors whose message is meant for the user."""


class SuiteError(QbenchError):
    """A suite file cannot be used as it stands."""


class SettingsError(QbenchError):
    """Settings do not fit the model that describes them."""


class PluginError(QbenchError):
    """A plugin cannot be found, told apart from another, or imported."""


class DataError(QbenchError):
    """A file from outside (weights, images, a data set) is missing or damaged."""


class StoreError(QbenchError):
    """The store cannot be used."""


class DamagedArtefact(StoreError):
    """An artefact's files are not the ones its manifest was written for."""


class StageError(QbenchError):
    """A stage ran and found that it has no honest result to give."""


class ResultsError(QbenchError):
    """A results folder or a record cannot be read or written."""


class ExportError(QbenchError):
    """A cell cannot be exported as it is, or not to where it should go."""


def place_error(error: OSError) -> QbenchError | None:
    """Return the sentence for a file or folder that the system refuses for what it is, None for any other error.

    Every command may be given a name that is too long, or leads where nobody may look.
    """
    if error.filename is None or error.errno not in REFUSED:
        return None
    return QbenchError(f"{str(error.filename)[:LONGEST_NAME]}: cannot be looked at ({error.strerror})")


def did_you_mean(wrong: str, known: "list[str]") -> str:
    """Return a clause that helps with a misspelt name: the nearest known one, or all of them.

    Args:
        wrong: what was written.
        known: the legal names.
    """
    import difflib

    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not known:
        return "there are none"
    return f"known are {', '.join(sorted(known))}"
