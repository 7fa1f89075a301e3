from typing import Literal

import pytest

from lesionseg.common.errors import InputError
from lesionseg.common.parameters import Field, Group, load


class Example(Group):
    count: int = Field(ge=1)
    rate: float = Field(gt=0, lt=1)
    mode: Literal["fast", "exact"]
    limit: int | None
    enabled: bool


GOOD = {"count": "3", "rate": "0.5", "mode": "fast", "limit": "null", "enabled": "true"}


def write(tmp_path, **changed):
    path = tmp_path / "params.yaml"
    entries = GOOD | changed
    path.write_text("example:\n" + "".join(f"  {key}: {value}\n" for key, value in entries.items() if value))
    return path


def problems(path):
    with pytest.raises(InputError) as caught:
        load("example", Example, path)
    return caught.value.problems


def test_a_valid_group_is_typed(tmp_path):
    assert load("example", Example, write(tmp_path)).model_dump() == {
        "count": 3,
        "rate": 0.5,
        "mode": "fast",
        "limit": None,
        "enabled": True,
    }


@pytest.mark.parametrize(
    ("text", "value"), [("1e-05", 1e-5), ("1E-5", 1e-5), ("2.5e-1", 0.25), (".5e0", 0.5), ("5e-1", 0.5)]
)
def test_exponents_are_numbers(tmp_path, text, value):
    assert load("example", Example, write(tmp_path, rate=text)).rate == value


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("count", "0", "greater than or equal to 1"),
        ("count", "2.5", "a valid integer"),
        ("count", "'3'", "a valid integer"),
        ("count", "true", "a valid integer"),
        ("count", "three", "a valid integer"),
        ("count", "null", "a valid integer"),
        ("rate", "1.5", "less than 1"),
        ("rate", "'0.5'", "a valid number"),
        ("rate", ".nan", "finite number"),
        ("mode", "slow", "'fast' or 'exact'"),
        ("limit", "many", "a valid integer"),
        ("enabled", "1", "a valid boolean"),
        ("enabled", "'yes'", "a valid boolean"),
    ],
)
def test_a_bad_value_is_one_line_with_key_found_and_expected(tmp_path, key, text, expected):
    (problem,) = problems(write(tmp_path, **{key: text}))
    assert f"example.{key}: found " in problem
    assert expected in problem


def test_all_problems_come_at_once(tmp_path):
    found = problems(write(tmp_path, count="0", mode="slow", enabled=None, raet="0.5"))
    assert len(found) == 4
    assert any("example.raet: unknown parameter; did you mean example.rate?" in line for line in found)
    assert any("example.enabled: missing" in line for line in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("other: 1\n", "'example' is missing"),
        ("example: 3\n", "'example' is missing"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_an_unusable_file_is_named(tmp_path, text, expected):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    (problem,) = problems(path)
    assert "params.yaml" in problem
    assert expected in problem


def test_a_missing_file_says_where_to_run(tmp_path):
    (problem,) = problems(tmp_path / "params.yaml")
    assert "run from the top of the repository" in problem
