"""YAML and JSON of a stranger, such as a branch that asks to be merged, as plain data or one clear refusal."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from lesionseg.common.errors import InputError  # noqa: E402

LONGEST = 4 << 20  # bytes; params.yaml, dvc.lock and the metrics have some 10,000


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases, of which a few lines can stand for more than memory holds, and without a key that is
    there twice, of which readers of YAML take now the first, now the last."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"the alias *{self.peek_event().anchor}: aliases are not read here")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for name, times in Counter(str(key.value) for key, _ in node.value).items():
            if times > 1:
                raise yaml.YAMLError(f"the key {name!r} stands there {times} times")
        return node


def mapping(content: str | bytes, name: str) -> dict[str, Any]:
    """The names and values of a YAML text, nothing of an empty one, or of JSON where the file's name ends so.

    `name` is how messages call it: the file's name, and what may follow after a space.

    Raises InputError for what is no such text, too long or nested too deeply, has a name that is no text, or a whole
    number of more than 64 bits.
    """
    if len(content) > LONGEST:
        raise InputError(f"{name} cannot be read: {len(content)} bytes, expected at most {LONGEST}")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        values = json.loads(text) if name.split()[0].endswith(".json") else (yaml.load(text, _Loader) or {})
        _require_plain(values)
    except Exception as error:  # PyYAML raises nearly everything: `!!bool x` is a KeyError, `[[[…` a RecursionError
        raise InputError(f"{name} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from None
    if not isinstance(values, dict):
        raise InputError(f"{name}: found no mapping of names to values")
    return values


def _require_plain(value: object) -> None:
    """Raise ValueError where a name is no text, such as a date, or a whole number beyond 64 bits, which neither a float
    nor, past 4,300 digits, a text can stand for."""
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                raise ValueError(f"the name {name!r} is no text")
            _require_plain(each)
    elif isinstance(value, list):
        for each in value:
            _require_plain(each)
    elif isinstance(value, int) and value.bit_length() > 64:
        raise ValueError(f"a whole number of {value.bit_length()} bits, expected at most 64")
