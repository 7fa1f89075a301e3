"""The notebook runs from top to bottom, and lies in git without outputs."""

import json
import re

import pytest

from tiny_data import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks/quickstart.ipynb"


def test_it_holds_no_outputs():
    """They are large, differ from run to run, and show paths of the machine that ran them."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        assert not cell.get("outputs"), "clear all outputs before saving"
        assert cell.get("execution_count") is None
    assert set(content["metadata"]) <= {"kernelspec", "language_info"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own packages
def test_it_runs_in_a_clone(tiny_run, monkeypatch):
    """In the folder of a clone where the tiny pipeline has run: the pipeline's cell finds nothing to do."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tiny_run.root / "notebooks"
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("text", "") for output in outputs)
    assert "didn't change" in said
    assert any("image/png" in output.get("data", {}) for output in outputs), "the predictions are shown"
    first, last = re.search(r"soft Jaccard loss: (\S+) at first, (\S+) after", said).groups()
    assert float(last) < float(first)
