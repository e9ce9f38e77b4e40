"""What methods, workloads, metrics and extractors have in common."""

import inspect
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from qbench.errors import PluginError, QbenchError
from qbench.plugins import Catalogue, Entry
from qbench.settings import Location, NoSettings, Settings, merged, validate


class Plugin(ABC):  # noqa: B024 (which methods are abstract is for each contract to say)
    """Something that an entry point offers.

    Attributes:
        settings_class: the model of its settings.
        revision: an integer that its author raises when its numerics change; it enters every digest.
        title: one line for listings.
        paper: where it was published, empty if it was not.
        entry: the offer it was made from.
        settings: its settings.

    Args:
        entry: the offer.
        settings: an instance of ``settings_class``.
    """

    settings_class: ClassVar[type[Settings]] = NoSettings
    revision: ClassVar[int] = 1
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def __init__(self, entry: Entry, settings: Settings) -> None:
        self.entry = entry
        self.settings = settings

    @property
    def name(self) -> str:
        """The public id."""
        return self.entry.name

    def describe(self) -> dict[str, Any]:
        """Return what identifies it in a digest: name, package, revision and every setting.

        The package's version is not in it: a release that changes no numerics must not cost anybody a cache.
        """
        return {
            "name": self.entry.name,
            "package": self.entry.package,
            "revision": self.revision,
            "settings": self.settings.model_dump(mode="json"),
        }


PluginT = TypeVar("PluginT", bound=Plugin)
ContractT = TypeVar("ContractT")


def load_class(catalogue: Catalogue, name: str, base: type[ContractT]) -> type[ContractT]:
    """Import a plugin's class.

    Raises:
        PluginError: the name is unknown or ambiguous, its import fails, or it is not a subclass of ``base``.
    """
    found = catalogue.load(name)
    if not issubclass(found, base):
        entry = catalogue.entry(name)
        raise PluginError(
            f"the {catalogue.kind} {name!r} of package {entry.package}: {entry.target} does not derive from "
            f"{base.__module__}.{base.__name__}"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(vars(found)["__abstractmethods__"]))
        raise PluginError(f"the {catalogue.kind} {name!r}: {found.__name__} does not implement {missing}")
    return found


def create(
    catalogue: Catalogue,
    name: str,
    base: type[PluginT],
    settings: Mapping[str, Any],
    place: Callable[[Location], str],
    error: Callable[[str], Exception],
) -> PluginT:
    """Return a plugin with its settings checked.

    Args:
        catalogue: where to look.
        name: the public id.
        base: the contract it must fulfil.
        settings: plain data; what is absent takes its default, in nested settings the default of the outer field.
        place: turns a location inside the settings into words.
        error: makes the exception for settings that do not fit.

    Raises:
        PluginError: as for ``load_class``.
        Exception: what ``error`` makes.
    """
    found = load_class(catalogue, name, base)
    model = found.settings_class
    with blaming(f"the {catalogue.kind} {name!r}"):
        filled = merged(model().model_dump(), settings)
    checked = validate(model, filled, place, error)
    with blaming(f"the {catalogue.kind} {name!r}"):
        return found(catalogue.entry(name), checked)


@contextmanager
def blaming(who: str) -> Iterator[None]:
    """Turn what a plugin's own code raises inside into an error that names it.

    Args:
        who: begins the sentence, such as ``the method 'mine'``.

    Raises:
        PluginError: instead of anything that is not an error for users already.
    """
    try:
        yield
    except (QbenchError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit, and what extensions derive from nothing else
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(f"{who} raises {reason}") from error
