"""Snippets of the documentation run; its links lead somewhere."""

import re
from pathlib import Path

import pytest

from evaluated import write_evaluation

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_snippets_of_extending_run_in_order(tmp_path, monkeypatch):
    write_evaluation(tmp_path, {"train": 2, "val": 2}, size=32)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs/extending.md").read_text("utf-8"), re.M | re.S)
    assert len(snippets) == 3
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/extending.md", "exec"), names)
    assert names["mask"].shape == (32, 32)
    assert any(parameter.grad is not None for parameter in names["model"].network.parameters())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        if target != "plots/gallery.png":  # written by the pipeline
            assert (page.parent / target).exists(), target
