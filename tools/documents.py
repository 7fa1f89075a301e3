"""YAML and JSON from a stranger, such as a pull request, as plain data or one clear refusal."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from lesionseg.common.errors import InputError  # noqa: E402

LONGEST = 4 << 20  # bytes; params.yaml, dvc.lock and the metrics have about 10,000


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, a few lines of which can expand beyond memory, and repeated keys, of which some
    YAML readers take the first and some the last."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"the alias *{self.peek_event().anchor}: aliases are not accepted here")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for name, times in Counter(str(key.value) for key, _ in node.value).items():
            if times > 1:
                raise yaml.YAMLError(f"the key {name!r} appears {times} times")
        return node


def mapping(content: str | bytes, name: str) -> dict[str, Any]:
    """The names and values in a YAML text (none in an empty one), or in JSON if the file's name ends in .json.

    `name` stands for it in messages: the file's name, and anything after a space.

    Raises InputError for a text that is neither, is too long or too deeply nested, or has a name that is not a text or
    a whole number of more than 64 bits.
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
    """Raise ValueError for a name that is not a text, such as a date, and for a whole number beyond 64 bits, which
    cannot become a float or, past 4,300 digits, a text."""
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                raise ValueError(f"the name {name!r} is not a text")
            _require_plain(each)
    elif isinstance(value, list):
        for each in value:
            _require_plain(each)
    elif isinstance(value, int) and value.bit_length() > 64:
        raise ValueError(f"a whole number of {value.bit_length()} bits, expected at most 64")
