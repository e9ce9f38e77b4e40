import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path

import pytest

from qbench.errors import PluginError
from qbench.plugins import CATALOGUES, METHODS, Catalogue, Entry

Offer = Callable[..., list[EntryPoint]]


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    """Write a package's metadata as pip would; return its offers."""

    def write(package: str, version: str = "1.0", place: str = "site", **targets: str) -> list[EntryPoint]:
        folder = tmp_path / place / f"{package}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = "".join(f"{name} = {target}\n" for name, target in targets.items())
        (folder / "entry_points.txt").write_text(f"[qbench.methods]\n{lines}")
        return list(PathDistribution(folder).entry_points)

    return write


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Make a module importable while the test lasts."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str) -> None:
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(source)

    return write


def test_listing_shows_who_offers_what(offer: Offer) -> None:
    offers = offer("beta", "2.0", zeta="beta_methods:Zeta") + offer("alpha", mine="alpha.core:Mine")
    catalogue = Catalogue("method", offers)
    assert catalogue.names() == ["mine", "zeta"]
    assert catalogue.entries() == [
        Entry("mine", "alpha", "1.0", "alpha.core:Mine"),
        Entry("zeta", "beta", "2.0", "beta_methods:Zeta"),
    ]
    assert catalogue.entry("zeta").version == "2.0"


def test_an_offer_without_a_package_is_listed() -> None:
    catalogue = Catalogue("method", [EntryPoint("mine", "some_module:Mine", "qbench.methods")])
    assert catalogue.entries() == [Entry("mine", "unknown", "unknown", "some_module:Mine")]


def test_one_name_from_two_packages_is_an_error_that_names_both(offer: Offer) -> None:
    catalogue = Catalogue("method", offer("beta", mine="beta:M") + offer("alpha", mine="alpha:M"))
    assert [entry.package for entry in catalogue.entries()] == ["alpha", "beta"]
    for ask in (catalogue.entry, catalogue.load):
        with pytest.raises(PluginError, match=r"'mine' is offered by alpha \(alpha:M\) and beta \(beta:M\)"):
            ask("mine")


def test_a_clash_stops_only_its_own_name(offer: Offer) -> None:
    catalogue = Catalogue("method", offer("beta", mine="b:M", other="b:O") + offer("alpha", mine="a:M"))
    assert catalogue.entry("other").package == "beta"


def test_one_package_met_twice_is_one_offer(offer: Offer) -> None:
    offers = offer("alpha", "1.0", mine="alpha:M") + offer("alpha", "1.1", place="checkout", mine="alpha:M")
    catalogue = Catalogue("method", offers)
    assert len(catalogue.entries()) == 1
    assert catalogue.entry("mine").package == "alpha"


def test_two_classes_of_one_package_under_one_name_clash(offer: Offer) -> None:
    offers = offer("alpha", mine="alpha:M") + offer("alpha", place="checkout", mine="alpha:Other")
    with pytest.raises(PluginError, match=r"alpha \(alpha:M\) and alpha \(alpha:Other\)"):
        Catalogue("method", offers).entry("mine")


def test_an_unknown_name_says_did_you_mean(offer: Offer) -> None:
    catalogue = Catalogue("method", offer("alpha", linear="a:L", qdiffusion="a:Q"))
    with pytest.raises(PluginError, match=r"^unknown method 'lineal': did you mean 'linear'\?$"):
        catalogue.load("lineal")
    with pytest.raises(PluginError, match="known are linear, qdiffusion"):
        catalogue.entry("zzz")


def test_a_class_is_imported_at_its_first_use(offer: Offer, module: Callable[[str, str], None]) -> None:
    module("plugin_that_works", "class Outer:\n    class Inner:\n        pass\n")
    catalogue = Catalogue("method", offer("alpha", a="plugin_that_works:Outer", b="plugin_that_works:Outer.Inner"))
    catalogue.entries()
    assert "plugin_that_works" not in sys.modules
    assert catalogue.load("a").__name__ == "Outer"
    assert catalogue.load("b").__qualname__ == "Outer.Inner"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library_at_all", "ModuleNotFoundError: No module named 'no_such_library_at_all'"),
        ("raise OSError('libcudart.so.12: cannot open shared object file')", "OSError: libcudart.so.12"),
        ("import sys; sys.exit('needs a licence')", "SystemExit: needs a licence"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("class Panic(BaseException): pass\nraise Panic('a native extension gave up')", "Panic: a native extension"),
        ("", "AttributeError"),
    ],
)
def test_an_import_that_fails_is_told_with_its_reason(
    offer: Offer, module: Callable[[str, str], None], source: str, reason: str
) -> None:
    module("plugin_that_fails", source)
    catalogue = Catalogue("method", offer("alpha", broken="plugin_that_fails:Method"))
    assert catalogue.names() == ["broken"]
    with pytest.raises(PluginError, match="the method 'broken' of package alpha cannot be imported") as caught:
        catalogue.load("broken")
    assert reason in str(caught.value)


def test_ctrl_c_during_an_import_is_no_problem_of_the_plugin(offer: Offer, module: Callable[[str, str], None]) -> None:
    module("plugin_interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Catalogue("method", offer("alpha", slow="plugin_interrupted:Method")).load("slow")


@pytest.mark.parametrize("target", ["plugin_odd:function", "plugin_odd:VALUE", "plugin_odd"])
def test_a_target_that_is_no_class_is_refused(offer: Offer, module: Callable[[str, str], None], target: str) -> None:
    module("plugin_odd", "VALUE = 3\ndef function():\n    pass\n")
    with pytest.raises(PluginError, match="of package alpha"):
        Catalogue("method", offer("alpha", odd=target)).load("odd")


def test_the_built_ins_come_through_the_same_door() -> None:
    assert METHODS.entry("linear") == Entry(
        "linear", "qbench", METHODS.entry("linear").version, "qbench_methods.linear:Linear"
    )
    assert [catalogue.group for catalogue in CATALOGUES] == [
        "qbench.methods",
        "qbench.workloads",
        "qbench.metrics",
        "qbench.extractors",
        "qbench.executors",
        "qbench.layers",
    ]


@pytest.mark.parametrize("command", [["methods", "list"], ["workloads", "list"], ["metrics", "list"], ["--help"]])
def test_listing_imports_nothing(command: list[str]) -> None:
    code = f"""
import sys
from qbench.cli.main import main
sys.argv = ["qbench", *{command!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "numpy", "diffusers", "pandas", "PIL", "yaml", "qbench_methods", "qbench.settings", "qbench.zoo"}}
sys.exit(f"imported {{sorted(heavy & set(sys.modules))}}" if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("linear" if command[0] == "methods" else "") in done.stdout
