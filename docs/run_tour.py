"""Runs docs/tour.ipynb and saves its outputs in the notebook, without logs.

python docs/run_tour.py        # needs the extra test
"""

import pathlib

import nbclient
import nbformat

TOUR = pathlib.Path(__file__).parent / "tour.ipynb"


def main() -> None:
    notebook = nbformat.read(TOUR, 4)
    resources = {"metadata": {"path": str(TOUR.parents[1])}}
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    nbformat.write(without_logs(notebook), TOUR)


def without_logs(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without stderr, timestamps and duplicate encodings of pictures."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        outputs = cell.get("outputs", [])
        for output in outputs:
            output.get("data", {}).pop("image/jpeg", None)
        if outputs:
            cell.outputs = [output for output in outputs if output.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    main()
