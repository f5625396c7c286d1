"""What a file must be before it is a suite."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grbench.errors import SuiteError
from grbench.suite.file import parse_yaml
from grbench.suite.suite import load_suite

pytestmark = pytest.mark.usefixtures("demo_training")


def doubled(first: str, further: str) -> bytes:
    """Forty lines; each stands for what the one before stands for, as often as `further` names it."""
    lines = [f"a0: &a0 {first}", *(f"a{n}: &a{n} " + further.format(f"*a{n - 1}") for n in range(1, 40))]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# nothing but this\n", "is empty"),
        (b"- 1\n", "should be a mapping of keys such as suite and methods, not a list"),
        (b"just text", 'should be a mapping of keys such as suite and methods, not "just text"'),
        (b"\x89PNG\r\n\x1a\n\xff", "is not a text file in UTF-8"),
        (b"suite: a\x00", "is not a text file"),
        (b"a: 1\nmethods:\n  x: {}\n  y: {}\n  x: {}\n", "5: duplicate key 'x', first given on line 3"),
        (b"a: [1\nb: 2\n", "2: while parsing a flow sequence"),
        (b"a: &a [*a]", "1: an alias stands for what it is part of"),
        (b"a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"a: 1\ntitle: !!bool z\n", "2: 'z' is no bool"),
        (b"a: !!int ''", "1: '' is no int"),
        (b"a: !!float ''", "1: '' is no float"),
        (b"a: !!timestamp z", "could not determine a constructor"),
        (b"a: !!set {b}", "could not determine a constructor"),
        (b"a: -9223372036854775809", "1: -9223372036854775809 is beyond 64 bits"),
        (b"a: 18446744073709551616", "1: 18446744073709551616 is beyond 64 bits"),
        (b"a: " + b"9" * 5000, "99... (5,000 characters) is beyond 64 bits"),
        (b'a: "\\ud800"', "has a character that no file can hold"),
        (b'a: "\\0"', "has a character that no file can hold"),
        (b"a: " + b"x" * 1_000_000, "1: a text of 1,000,000 characters; a suite's texts have at most 4,096"),
        (b"{? " + b"x" * 1000 + b" : 1}", "1: a key of 1,000 characters; keys have at most 250"),
        (b"#" * 4_000_001, "is larger than 4,000,000 bytes"),
        (b"a: " + b"[" * 1000 + b"]" * 1000, "lists and mappings are nested more than 32 deep"),
        (b"a: " + b"[" * 33 + b"]" * 33, "lists and mappings are nested more than 32 deep"),
        (doubled("[1, 1]", "[{0}, {0}]"), "13: more than 50,000 values, counting each alias as what it stands for"),
        (doubled("{k: 1}", "{{<<: [{0}, {0}]}}"), "13: more than 50,000 values, counting each alias"),
        (doubled("[1]", "[{0}]"), "lists and mappings are nested more than 32 deep"),
        (b"suit: x\n", "unknown key 'suit'; did you mean suite?"),
    ],
)
def test_a_file_that_is_no_suite_gets_one_message(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(SuiteError) as raised:
        load_suite(path)
    assert str(raised.value).startswith(f"{path}:")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 900


def test_a_file_that_is_not_there_or_a_folder(tmp_path):
    with pytest.raises(SuiteError, match=r"x\.yaml: no such file"):
        load_suite(tmp_path / "x.yaml")
    with pytest.raises(SuiteError, match="cannot be read: Is a directory"):
        load_suite(tmp_path)


def test_yaml_is_read_as_version_1_2():
    text = "[1e-3, -2.5E+3, .5, 1., 010, 0x1F, 0o17, no, on, 2025-05-31, 12:30, 1_000, '1e-3', ~, true, 1e, +7]"
    assert parse_yaml(text, "x") == [
        *(0.001, -2500.0, 0.5, 1.0, 10, 31, 15, "no", "on", "2025-05-31", "12:30", "1_000", "1e-3", None, True, "1e", 7)
    ]


def test_anchors_are_copies_and_merge_keys_may_repeat_a_key():
    parsed = parse_yaml("a: {b: &b {<<: &c {p: 1}, p: 2}}\nd: {<<: *b, q: 3}\ne: *c\n", "x")
    assert parsed == {"a": {"b": {"p": 2}}, "d": {"p": 2, "q": 3}, "e": {"p": 1}}
    parsed["e"]["p"] = 5
    assert parsed["a"]["b"]["p"] == 2


# Keys of one letter and longer ones: PyYAML 6.0.4 takes another pair of one-letter keys than of others.
@pytest.mark.parametrize("key", ["p", "layers"])
@pytest.mark.parametrize(
    ("text", "merged"),
    [
        ("{<<: *one, KEY: 0}", {"KEY": 0, "one": 1}),
        ("{KEY: 0, <<: *one}", {"KEY": 0, "one": 1}),
        ("{<<: [*one, *two]}", {"KEY": 1, "one": 1, "two": 2}),
        ("{<<: [*two, *one], one: 0}", {"KEY": 2, "one": 0, "two": 2}),
        ("{<<: [*one, *one]}", {"KEY": 1, "one": 1}),
        ("{<<: {<<: *one, KEY: 0}}", {"KEY": 0, "one": 1}),
        ("{<<: {<<: {<<: *one, KEY: 0}, one: 3}, one: 4}", {"KEY": 0, "one": 4}),
        ("{<<: [{<<: *one, two: 0}, *two]}", {"KEY": 1, "one": 1, "two": 0}),
        ("{<<: [{<<: [*two, *one]}, {three: 3}], KEY: 0}", {"KEY": 0, "one": 1, "two": 2, "three": 3}),
        ("{<<: []}", {}),
        ("{'<<': 0}", {"<<": 0}),
    ],
)
def test_a_mapping_s_own_key_wins_over_merged_ones_and_an_earlier_merged_mapping_over_later_ones(key, text, merged):
    anchors = {"a": {"KEY": 1, "one": 1}, "b": {"KEY": 2, "two": 2}}
    document = f"a: &one {{KEY: 1, one: 1}}\nb: &two {{KEY: 2, two: 2}}\nc: {text}\nd: {text}\n".replace("KEY", key)
    expected = {**anchors, "c": merged, "d": merged}
    assert parse_yaml(document, "x") == json.loads(json.dumps(expected).replace("KEY", key))


@pytest.mark.parametrize("value", ["1", "[{a: 1}, 2]", "[[{a: 1}]]", ""])
def test_only_mappings_can_be_merged(value):
    with pytest.raises(SuiteError, match=r"^x:2: expected mappings to merge, but found a (scalar|sequence)$"):
        parse_yaml(f"a: 1\n<<: {value}\n", "x")


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1))
def test_a_number_as_python_prints_it_is_that_number(number):
    assert parse_yaml(f"- {number!r}", "x") == [number]
