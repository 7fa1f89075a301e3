"""The overlays in profiles/ name parameters that exist, with values that the stages accept."""

import importlib.util
import re

import pytest
import yaml

from conftest import REPOSITORY, overlay
from lesionseg.common.parameters import Runtime, load

PROFILES = sorted(path.name for path in (REPOSITORY / "profiles").glob("*.txt"))


def schema(group: str):
    if group == "runtime":
        return Runtime
    spec = importlib.util.spec_from_file_location(f"stage_{group}", REPOSITORY / "stages" / f"{group}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Parameters


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_every_setting_is_known_and_valid(profile, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "stages")
    parameters = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for setting in overlay(profile)[1::2] if profile else []:
        name, value = setting.split("=", 1)
        group, key = name.split(".")
        assert key in parameters[group], f"{profile}: {name} is not in params.yaml"
        parameters[group][key] = yaml.safe_load(value)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    for group in parameters:
        load(group, schema(group), path)


def test_every_parameter_is_a_commented_scalar():
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    for group, entries in yaml.safe_load(text).items():
        for key, value in entries.items():
            assert not isinstance(value, (dict, list)), f"{group}.{key}: `-S` rewrites whatever is no scalar"
            own = rf"^  {key}:.* # \S"  # on the key's line, or on the line above it
            above = rf"^  # .*\n  {key}: "
            assert re.search(rf"{own}|{above}", text, re.MULTILINE), f"{group}.{key} has no comment"
