r"""The LaTeX of a suite: it is ready to paste, and nothing in it is anything but text."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbench.records import Record
from qbench.results.latex import escaped, suite_latex
from qbench.results.published import Protocol, PublishedFigure, Source
from qbench.results.tables import write_suite_tables

MakeRecord = Callable[..., Record]
WriteRecords = Callable[..., Path]
FULL = {"label": "full-precision", "bits": "W32A32", "position": 0}
HOSTILE = (
    '\\input{/etc/passwd} & % $x_1$ #1 ~^ {open\n\\end{tabular} <script> "q" [x] *y* -- caf\u00e9 \u03b2 \u4e2d | ``'
)
GROUPS = 20


def latex(folder: Path) -> str:
    return (folder / "table.tex").read_text(encoding="ascii")


def bare(text: str) -> str:
    """Return LaTeX without what is escaped, so that what is left means something."""
    return re.sub(r"\\[\\{}$&#%_]", "", text)


def tabulars(text: str) -> list[tuple[str, list[list[str]]]]:
    """Return the column types and the cells of every tabular."""
    found = []
    for types, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        rows = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r" \\")]
        found.append((types, [[cell.strip() for cell in re.split(r"(?<!\\)&", row)] for row in rows]))
    return found


def check(text: str) -> None:
    """Check everything of which LaTeX would complain, as far as that can be seen without it."""
    depth = 0
    for character in bare(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    for types, rows in tabulars(text):
        assert {len(row) for row in rows} == {len(types)}
    lines = [line for line in text.splitlines() if not line.startswith("% ")]
    assert all(bare(line).count("$") % 2 == 0 for line in lines)
    assert not [line for line in lines if "%" in bare(line)]
    assert not [line for line in lines if re.search(r"[#_^&~]", re.sub(r"\$[^$]*\$| & ", "", bare(line)))]
    assert not re.search(r"\\\\\s*[\[*]", text)


@pytest.fixture
def sure(make_record: MakeRecord) -> MakeRecord:
    """Return a function that makes a cell whose figure is the same without any images."""

    def make(label: str, value: float, **changes: Any) -> Record:
        difference = {} if label == "full-precision" else {"delta": value - 1, "low": value - 1.5, "high": value - 0.5}
        figure = {"value": value, "samples": 12, "without": [value] * GROUPS} | difference
        return make_record(label, figures={"distance": figure}, **changes)

    return make


class TestTheTable:
    def test_it_is_laid_out_like_those_of_papers(self, sure: MakeRecord, write_records: WriteRecords):
        folder = write_records(
            sure("b", 2.0, bits="W8A8", position=1),
            sure("c", 3.25, bits="W4A8", position=2),
            sure("b", 1.25, bits="W4A8", position=3),
            sure("full-precision", 1.0, bits="W32A32", position=4),
        )
        write_suite_tables(folder)
        text = latex(folder)
        check(text)
        ((types, rows),) = tabulars(text)
        assert types.startswith("llr")
        assert rows[0][:6] == [
            "method", "bits", "MB", "MACs q.", r"par.\ q.", r"distance $\downarrow$",
        ]  # fmt: skip
        assert [row[:2] for row in rows[1:]] == [
            ["full-precision", "W32A32"], ["b", "W8A8"], ["c", "W4A8"], ["b", "W4A8"],
        ]  # fmt: skip
        assert [row[5] for row in rows[1:]] == ["1.00", "2.00", "3.25", r"\textbf{1.25}"]
        assert [row[6] for row in rows[1:]] == [
            "", r"$+1.00 \pm 0.50$", r"$+2.25 \pm 0.50$", r"$+0.250 \pm 0.500^{\circ}$",
        ]  # fmt: skip
        body = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
        assert [line.split(" &")[0] for line in body.splitlines() if line] == [
            "method", r"\midrule", "full-precision", r"\midrule", "b", r"\midrule", "c", "b",
        ]  # fmt: skip

    def test_the_caption_names_the_conditions_and_notes_what_columns_are(
        self, sure: MakeRecord, write_records: WriteRecords
    ):
        folder = write_records(sure("full-precision", 1.0, bits="W32A32"), sure("b", 2.0))
        write_suite_tables(folder)
        text = latex(folder)
        caption = (
            r"\caption{A title: micro. 12 samples; DDIM 4 steps, eta 0; seed 0; weights of the first and last layer"
        )
        assert caption in text
        assert "\ndistance (lower is better): T; P.\\par\n" in text.partition(r"\begin{minipage}")[2]
        assert "booktabs" in text.splitlines()[0]

    def test_an_interval_that_is_not_symmetric_is_printed_as_it_is(
        self, make_record: MakeRecord, write_records: WriteRecords
    ):
        figure = {"value": 2.0, "delta": 1.0, "low": 0.5, "high": 2.0, "samples": 12}
        folder = write_records(make_record(figures={"distance": figure, "mse-to-fp": figure}))
        write_suite_tables(folder)
        check(latex(folder))
        ((_, rows),) = tabulars(latex(folder))
        assert rows[1][5:] == ["2.00", r"$+1.00 \;[0.50, 2.00]$", "2.00", "$[0.50, 2.00]$"]

    def test_each_workload_has_a_table(self, make_record: MakeRecord, write_records: WriteRecords):
        folder = write_records(make_record(), make_record(workload="other", position=2))
        write_suite_tables(folder)
        check(latex(folder))
        assert len(tabulars(latex(folder))) == 2

    def test_of_several_seeds_the_mean_is_printed(self, sure: MakeRecord, write_records: WriteRecords):
        cells = [sure(label, value + seed, seed=seed) for label, value in (("a", 1.0), ("b", 3.0)) for seed in (0, 1)]
        folder = write_records(*cells)
        write_suite_tables(folder)
        check(latex(folder))
        ((_, rows),) = tabulars(latex(folder))
        place = rows[0].index(r"distance $\downarrow$")
        assert [row[place] for row in rows[1:]] == [r"\textbf{1.50} (1.00 to 2.00)", "3.50 (3.00 to 4.00)"]
        assert "Mean over seeds, lowest to highest." in latex(folder)
        assert [row[place + 1] for row in rows[1:]] == [
            "$+$0.50 ($+$0.00 to $+$1.00)",
            "$+$2.50 ($+$2.00 to $+$3.00)",
        ]
        assert r"95\,\%" not in latex(folder).partition("MACs q., ")[0]

    def test_of_several_seeds_the_interval_of_the_mean_difference_is_printed(
        self, sure: MakeRecord, write_records: WriteRecords
    ):
        full = [sure("full-precision", 1.0, bits="W32A32", position=0, seed=seed) for seed in (0, 1)]
        cells = []
        for label, value, noise in (("a", 2.0, 0.02), ("b", 1.0, 0.02)):
            for seed in (0, 1):
                record = sure(label, value + seed / 10, seed=seed)
                without = [value + seed / 10 + noise * (-1) ** group for group in range(GROUPS)]
                figure = record.figures["distance"].model_copy(update={"without": without})
                cells.append(record.model_copy(update={"figures": {"distance": figure}}))
        folder = write_records(*full, *cells)
        write_suite_tables(folder)
        check(latex(folder))
        ((_, rows),) = tabulars(latex(folder))
        place = rows[0].index(r"$\Delta$ (over seeds)")
        assert [row[place] for row in rows[1:]] == [
            "-",
            r"$+1.05 \pm 0.13$ ($+$1.00 to $+$1.10)",
            r"$+0.050 \pm 0.129^{\circ}$ ($+$0.000 to $+$0.100)",
        ]
        assert (
            r"$\circ$: the interval holds zero; in parentheses the lowest and highest of the seeds. MACs q."
            in latex(folder)
        )

    def test_what_failed_or_is_missing_says_so(self, make_record: MakeRecord, write_records: WriteRecords):
        failures = dict.fromkeys(("distance", "mse-to-fp"), "out of 100 % luck")
        bad = make_record(status="failed", reason="out of 100 % luck", failures=failures, figures={}, profile=None)
        later = make_record("later", status="pending", figures={}, profile=None, position=2)
        folder = write_records(bad, later)
        write_suite_tables(folder)
        check(latex(folder))
        ((_, rows),) = tabulars(latex(folder))
        assert [row[5] for row in rows[1:]] == ["failed", "not run"]
        assert r"Failed: round W4A8 on micro, seed 0: out of 100 \% luck." in latex(folder)
        assert "Not run to the end: later W4A8 on micro, seed 0." in latex(folder)

    def test_published_figures_have_a_table_of_their_own(
        self, sure: MakeRecord, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch
    ):
        source = Source("A & B 2023", "table 1", "https://example.org/~a_b")
        figures = [
            PublishedFigure("p", "b", "W4A8", "micro", "distance", value, source, Protocol(), checked=checked)
            for value, checked in ((2.0, True), (9.0, False))
        ]
        monkeypatch.setattr("qbench.results.tables.read_published", lambda *_: (figures, []))
        folder = write_records(sure("full-precision", 1.0, bits="W32A32"), sure("b", 2.0))
        write_suite_tables(folder)
        check(latex(folder))
        _, (types, rows) = tabulars(latex(folder))
        assert types.startswith("ll")
        assert [row[3] for row in rows[1:]] == ["2", "9 (unchecked)"]
        assert r"1: A \& B 2023, table 1, https://example.org/\textasciitilde{}a\_b." in latex(folder)

    def test_no_records_are_no_table(self, tmp_path: Path):
        (tmp_path / "records").mkdir()
        write_suite_tables(tmp_path)
        assert tabulars(latex(tmp_path)) == []


class TestText:
    @pytest.mark.parametrize("where", ["label", "title", "workload", "reason", "protocol"])
    def test_hostile_text_stays_text(self, where: str, make_record: MakeRecord):
        raw = make_record(status="failed", reason="why", figures={}).model_dump(mode="json")
        if where == "title":
            raw["suite"]["title"] = HOSTILE
        elif where == "protocol":
            raw["metrics"]["distance"] |= {"protocol": HOSTILE, "title": HOSTILE}
        else:
            raw[where] = HOSTILE
        record = Record.model_validate(raw)
        text = suite_latex([record], record.metrics)
        check(text)
        assert text.isascii()
        assert r"\input" not in text
        assert r"\textbackslash{}input\{" in text

    def test_every_character_has_a_place(self):
        assert escaped(r"a_b & 50 % of $x^2$ {~#}") == (
            r"a\_b \& 50 \% of \$x\textasciicircum{}2\$ \{\textasciitilde{}\#\}"
        )
        assert escaped('\\<|>"`') == r"\textbackslash{}\textless{}\textbar{}\textgreater{}''{`}"
        assert escaped("a--b---c ''d'' e-f") == "a-{}-b-{}-{}-c '{}'d'{}' e-f"
        assert escaped("[x] and [y]") == "{[}x] and [y]"
        assert escaped("*x*") == "{*}x*"
        assert escaped("two\nlines\tand\x00a\x1bzero") == "two lines and a zero"
        assert escaped("caf\u00e9 \u010d \u00fc 16\u00d716 \u03b2 \udce9") == (
            r"caf\'{e} \v{c} \" {u} 16$\times$16 U+03B2 U+DCE9".replace('" {', '"{')
        )

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
    def test_latex_takes_it(self, make_record: MakeRecord, write_records: WriteRecords, tmp_path: Path):
        bad = make_record("bad", status="failed", reason=HOSTILE, figures={}, position=3)
        folder = write_records(make_record(**FULL), make_record("other", position=2), bad)
        write_suite_tables(folder)
        (tmp_path / "paper.tex").write_text(
            "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + latex(folder) + "\\end{document}\n"
        )
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout[-2000:]
