"""One group of params.yaml, typed and validated, before any work is done."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from lesionseg.common.errors import InputError


class Group(BaseModel):
    """Base of every stage's parameters: strict types, no unknown keys, no infinities, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def one_of(names: Iterable[str]) -> AfterValidator:
    """Require a str parameter to be one of `names`: `Annotated[str, one_of(SCHEDULES)]`."""
    names = tuple(names)

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(" or ".join(filter(None, (", ".join(map(repr, names[:-1])), repr(names[-1])))))
        return value

    return AfterValidator(check)


class Runtime(Group):
    """The `runtime` group: settings that do not belong to an experiment, so that no stage tracks them.

    The device does change digits; what it was is recorded with the results.
    """

    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    workers: int | None = Field(ge=0)
    checkpoint_minutes: float = Field(ge=0)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 floats: DVC writes `1e-05`, which YAML 1.1 (PyYAML) takes for a string."""


_Loader.yaml_implicit_resolvers = dict(yaml.SafeLoader.yaml_implicit_resolvers)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)

Schema = TypeVar("Schema", bound=Group)


def load(group: str, schema: type[Schema], path: str | Path = "params.yaml") -> Schema:
    """Return the `group` of the parameter file as a validated `schema`.

    Raises InputError with one line for every unknown, missing, mistyped or out-of-range key.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise InputError(f"{path}: not found in {Path.cwd()}; run from the top of the repository") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # no text, no date, no end
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get(group), dict):
        raise InputError(f"{path}: the group '{group}' is missing; expected `{group}:` with its keys below it")
    try:
        return schema.model_validate(content[group])
    except ValidationError as error:
        raise InputError(_line(path, group, schema, problem) for problem in error.errors()) from None


def _line(path: Path, group: str, schema: type[Group], problem: ErrorDetails) -> str:
    """One problem that pydantic found, as: file: key: found, expected."""
    name = str(problem["loc"][0]) if problem["loc"] else group
    key = f"{path}: {group}.{name}" if problem["loc"] else f"{path}: {group}"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, schema.model_fields, n=1)
        hint = f"did you mean {group}.{near[0]}?" if near else f"known: {', '.join(schema.model_fields)}"
        return f"{key}: unknown parameter; {hint}"
    if problem["type"] == "missing":
        return f"{key}: missing; add it to the file"
    expected = (
        problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ").removeprefix("String should ")
    )
    return f"{key}: found {problem['input']!r}, expected {expected}"


__all__ = ["Field", "Group", "Runtime", "load", "one_of"]
