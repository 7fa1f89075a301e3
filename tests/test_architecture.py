"""docs/architecture.md lists every room of the library, and imports keep the rule that it states."""

import re

import pytest
from import_closure import REPOSITORY, imported_names

LIBRARY = REPOSITORY / "src/lesionseg"
PAGE = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
SECTIONS = [re.findall(r"^\| `(\w+)/` \|", section, re.MULTILINE) for section in PAGE.split("\n### ")]
COMMANDS, STAGES, SHARED = SECTIONS[1:4]
ROOMS = [*COMMANDS, *STAGES, *SHARED]  # from the top down


def test_the_page_lists_every_room_once():
    assert sorted(ROOMS) == sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))


def test_the_page_lists_every_stage():
    assert sorted(STAGES) == sorted(
        path.stem for path in (REPOSITORY / "stages").glob("*.py") if path.stem != "checkout"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_further_down_and_no_stages_room(room):
    allowed = {*ROOMS[ROOMS.index(room) :]} - ({*STAGES} - {room})
    names = {name for path in (LIBRARY / room).rglob("*.py") for name in imported_names(path)}
    imported = {name.split(".")[1] for name in names if name.startswith("lesionseg.")} & {*ROOMS}
    assert imported <= allowed, f"{room} imports {', '.join(sorted(imported - allowed))}"


def test_every_folder_of_the_picture_is_an_output_of_the_pipeline():
    pipeline = (REPOSITORY / "dvc.yaml").read_text(encoding="utf-8")
    picture = PAGE.partition("```mermaid")[2].partition("```")[0]
    for folder in re.findall(r"\b(?:data|models)/[\w-]+", picture):
        assert f"- {folder}\n" in pipeline, folder
