from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrepro import yamlfile
from vitrepro.errors import ClaimFileError

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if hasattr(yaml, "CSafeLoader") else [])]


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__)
def _either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlfile, "_loader", lambda: request.param)


@pytest.fixture
def _in_under_a_second() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < 1


def value(text: str) -> Any:
    return yamlfile.parse(text, "f.yaml").value


def refusal(text: str) -> str:
    with pytest.raises(ClaimFileError) as caught:
        yamlfile.parse(text, "f.yaml")
    (problem,) = caught.value.problems
    assert len(problem.splitlines()) == 1
    return problem


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("+.5E3", 500.0),
        ("1.", 1.0),
        ("010", 10),
        ("-3", -3),
        ("2121000000", 2_121_000_000),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
    ],
)
@pytest.mark.usefixtures("_either_parser")
def test_plain_words_are_the_numbers_and_constants_that_a_person_reads(text: str, expected: Any) -> None:
    found = value(f"key: {text}")["key"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "text", ["no", "on", "yes", "off", "y", "10:30", "1_000", "0x10", ".nan", ".inf", "2026-01-01"]
)
@pytest.mark.usefixtures("_either_parser")
def test_words_that_yaml_1_1_turns_into_something_else_are_text(text: str) -> None:
    assert value(f"key: {text}") == {"key": text}


@pytest.mark.parametrize("quoted", ["'10'", '"10"', "|-\n 10", "'true'"])
def test_quoted_and_block_scalars_are_text(quoted: str) -> None:
    assert value(f"key: {quoted}") in ({"key": "10"}, {"key": "true"})


def test_keys_are_always_text() -> None:
    assert value("{100: a, true: b, 1e3: c}") == {"100": "a", "true": "b", "1e3": "c"}


@pytest.mark.usefixtures("_either_parser")
def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: \xc3\xa9\r\n")
    document = yamlfile.read(path)
    assert document.value == {"a": 1, "b": {"c": "é"}}
    assert document.where(("a",)) == f"{path}:1:1"
    assert document.where(("b", "c")) == f"{path}:3:3"


@pytest.mark.parametrize("text", ["", "# a comment only", "---"])
def test_an_empty_file_is_nothing(text: str) -> None:
    assert value(text) is None


def test_a_place_is_the_line_and_column_of_the_key_or_of_what_encloses_it() -> None:
    document = yamlfile.parse("a:\n  - b: 1\n    c: 2\n", "f.yaml")
    assert document.where(("a", 0, "c")) == "f.yaml:3:5"
    assert document.where(("a", 0, "missing")) == "f.yaml:2:5"
    assert document.where(("missing",)) == "f.yaml:1:1"


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1", "key 'a' stands twice, first on line 1"),
        ("x:\n  a: 1\n  'a': 2", "f.yaml:3:3", "stands twice, first on line 2"),
        ("a:\n\tb: 1", "f.yaml:2:1", "not valid YAML"),
        ("a:\n  b: 1\n\tc: 2", "f.yaml:3:1", "not valid YAML"),
        ("a: &x 1", "f.yaml:1:4", "anchor &x"),
        ("a: *x", "f.yaml:1:4", "alias *x"),
        ("a: !foo 1", "f.yaml:1:4", "tag !foo"),
        ("!!map {a: 1}", "f.yaml:1:1", "tag tag:yaml.org,2002:map"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1", "a second document"),
        ("[a, b]: 1", "f.yaml:1:1", "a key that is not text"),
        ("a: 'open", "f.yaml:1:9", "not valid YAML"),
        ("a: b: c", "f.yaml:1:5", "not valid YAML"),
        ("é: 1\né: \x00", "f.yaml:2:4", "character '\\x00' is not text"),
        ("a: \ud800", "f.yaml:1:4", "character '\\ud800' is not text"),
    ],
)
@pytest.mark.usefixtures("_either_parser")
def test_what_is_refused_is_named_with_its_line(text: str, where: str, words: str) -> None:
    problem = refusal(text)
    assert problem.startswith(where + ":")
    assert words in problem


@pytest.mark.usefixtures("_either_parser", "_in_under_a_second")
def test_a_tag_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    for tag in ("apply:os.system", "object/apply:os.system", "new:os.system", "name:os.system"):
        assert "f.yaml:1:4: tag" in refusal(f"a: !!python/{tag} ['touch {target}']")
    assert not target.exists()


@pytest.mark.usefixtures("_either_parser", "_in_under_a_second")
def test_a_billion_laughs_are_refused_at_the_first_anchor() -> None:
    lines = ["a0: &a0 [lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    assert "f.yaml:1:5: anchor &a0" in refusal("\n".join(lines))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "{a: ["])
@pytest.mark.usefixtures("_either_parser", "_in_under_a_second")
def test_ten_thousand_levels_are_refused(opening: str) -> None:
    assert "nested deeper than 32 levels" in refusal(opening * 10_000)


def test_levels_that_a_claim_file_needs_are_allowed() -> None:
    assert value("[" * 12 + "]" * 12)


@pytest.mark.usefixtures("_in_under_a_second")
def test_a_file_of_50_megabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(ClaimFileError, match=r"large\.yaml: .* at most 2,000,000 bytes"):
        yamlfile.read(path)


@pytest.mark.usefixtures("_in_under_a_second")
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_a_device_without_an_end_is_refused() -> None:
    with pytest.raises(ClaimFileError, match="at most 2,000,000 bytes"):
        yamlfile.read(Path("/dev/zero"))


@pytest.mark.usefixtures("_in_under_a_second")
def test_a_long_value_on_the_command_line_is_refused() -> None:
    assert "at most 2,000,000" in refusal("a" * 2_000_001)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9t\xe9")
    (tmp_path / "folder.yaml").mkdir()
    for name, reason in (("latin", "not UTF-8 text (byte 3)"), ("folder", "directory"), ("missing", "No such file")):
        with pytest.raises(ClaimFileError) as caught:
            yamlfile.read(tmp_path / f"{name}.yaml", shown=f"shown/{name}.yaml")
        assert caught.value.exit_code == 2
        assert str(caught.value).startswith(f"shown/{name}.yaml: ")
        assert reason in str(caught.value)


# --- properties -------------------------------------------------------------------------------

# PyYAML writes the texts 1e3 and 08 without quotes, because it would not read them as numbers
texts = st.text(st.characters(codec="utf-8"), max_size=12).filter(
    lambda t: type(yamlfile.scalar(t)) not in (int, float)
)
numbers = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
trees = st.recursive(scalars, lambda t: st.lists(t, max_size=4) | st.dictionaries(texts, t, max_size=4), max_leaves=12)


@given(trees)
@settings(max_examples=150, deadline=None)
def test_what_yaml_writes_is_read_back(tree: Any) -> None:
    assert value(yaml.safe_dump(tree)) == tree


@given(
    st.text(st.sampled_from("ab1:-{}[]!&*|>'\"#%@`,?~ \t\n\r\\.e+é\x00\x85\u2028\ufeff\ud800"), max_size=40) | st.text()
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        value(text)
    except ClaimFileError as error:
        (problem,) = error.problems
        assert problem.startswith("f.yaml")
        assert "\n" not in problem


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "f.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ClaimFileError):
        yamlfile.read(path)
