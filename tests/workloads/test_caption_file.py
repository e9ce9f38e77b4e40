from pathlib import Path

import pytest

from qbench.errors import DataError
from qbench.workloads.caption_file import CaptionList, read_captions


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        read_captions(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(str(path))


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_line_is_a_caption(tmp_path: Path, end: str, newline: str, mark: str) -> None:
    (tmp_path / "mine.txt").write_bytes(f"{mark}a cat{newline}un café, s'il vous plaît{end}".encode())
    found = read_captions(tmp_path / "mine.txt")
    assert found == CaptionList("mine", ("a cat", "un café, s'il vous plaît"))
    assert len(found) == 2


@pytest.mark.parametrize(("suffix", "comma"), [("tsv", "\t"), ("csv", ",")])
def test_a_column_holds_captions(tmp_path: Path, suffix: str, comma: str) -> None:
    rows = [["id", "caption", "file_name"], ["1", '"a sign that says ""Stop"", red"', "a.jpg"], ["2", "a cat", "b.jpg"]]
    (tmp_path / f"mine.{suffix}").write_text("".join(comma.join(row) + "\n" for row in rows))
    found = read_captions(tmp_path / f"mine.{suffix}")
    assert found.captions == ('a sign that says "Stop", red', "a cat")
    assert found.files == ("a.jpg", "b.jpg")


def test_the_digest_is_of_texts_and_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\na dog\n")
    (tmp_path / "b.csv").write_text("caption\na cat\na dog\n")
    first, second = (read_captions(tmp_path / name) for name in ("a.txt", "b.csv"))
    assert first.digest == second.digest
    assert len({first.digest, CaptionList("", ("a dog", "a cat")).digest, CaptionList("", ("a cat",)).digest}) == 3


def test_captions_of_samples() -> None:
    found = CaptionList("mine", ("a", "b", "c"))
    assert found.at(range(1, 3)) == ["b", "c"]
    assert found.at([]) == []
    assert found.at(range(2, 5), again=True) == ["c", "a", "b"]
    with pytest.raises(DataError) as caught:
        found.at(range(2, 4))
    assert str(caught.value) == "mine are 3 captions, and 4 samples are asked for: ask for 3 at most"


@pytest.mark.parametrize("character", ["\0", "\t", "\x1b", "\x85", "\u2028"])
def test_control_characters(tmp_path: Path, character: str) -> None:
    told = refusal(tmp_path / "a.txt", f"a cat\na{character}dog\n")
    assert told == f", line 2: the caption holds the control character U+{ord(character):04X}: delete it"


def test_a_line_break_inside_a_quoted_caption(tmp_path: Path) -> None:
    assert ", line 3: the caption holds the control character U+000A" in refusal(
        tmp_path / "a.csv", 'caption\n"a cat\nand a dog"\n'
    )


@pytest.mark.parametrize(("content", "line"), [("a\n\nb\n", 2), ("a\n  \n", 2), ("\n", 1), ("a\n\n", 2)])
def test_empty_lines(tmp_path: Path, content: str, line: int) -> None:
    assert refusal(tmp_path / "a.txt", content) == f", line {line}: there is no caption: delete the line, or write one"


@pytest.mark.parametrize(
    ("caption", "words"),
    [("word " * 10_000, "10,000 words in 50,000 characters"), ("x" * 10_001, "1 words in 10,001 characters")],
)
def test_more_than_anybody_says_of_an_image(tmp_path: Path, caption: str, words: str) -> None:
    told = refusal(tmp_path / "a.txt", f"a cat\n{caption}\n")
    assert told == f", line 2: the caption has {words}: at most 1,000 words and 10,000 characters are read"


@pytest.mark.parametrize("content", ["a cat\nun café\n".encode("latin-1"), "a\nb".encode("utf-16")])
def test_other_encodings(tmp_path: Path, content: bytes) -> None:
    line = 2 if content.startswith(b"a cat") else 1
    assert refusal(tmp_path / "a.txt", content) == (f", line {line}: this is not UTF-8: save the file in that encoding")


def test_no_captions(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.txt", "") == " holds no captions"
    assert refusal(tmp_path / "a.tsv", "id\tcaption\n") == " holds no captions"
    assert refusal(tmp_path / "a.csv", "") == " has no column 'caption': its first line names nothing"
    assert refusal(tmp_path / "a.csv", "id,text\n1,a\n") == " has no column 'caption': its first line names id, text"


def test_rows_that_are_none(tmp_path: Path) -> None:
    told = refusal(tmp_path / "a.csv", "id,caption\n1,a cat\n2,a dog, barking\n")
    assert told == ", line 3: 3 columns are there, and the first line names 2"
    assert ", line 2: this is no row of a table (" in refusal(tmp_path / "a.csv", 'caption\n"a" cat\n')
    assert "this is no row of a table (unexpected end of data)" in refusal(tmp_path / "a.csv", 'caption\n"a cat\n')


def test_files_that_are_none(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.json", "[]").startswith(" is no file of captions: a .txt with one a line is")
    with pytest.raises(DataError, match=r"none\.txt cannot be read \(No such file"):
        read_captions(tmp_path / "none.txt")
