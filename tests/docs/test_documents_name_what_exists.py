"""Documents don't rot unseen: every file they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
NAMED = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|yaml|toml))`")
# What users have, not the repository.
ELSEWHERE = {"model.py", "layers.py", "fleet.yaml", "agent.json", "config.json"}


@pytest.fixture(scope="module")
def files() -> list[str]:
    """The repository's files without those in hidden folders (.venv is large), each with a "/" in front."""
    folders = [top for top in REPO.iterdir() if top.is_dir() and not top.name.startswith(".")]
    return [f"/{path.relative_to(REPO)}" for top in folders for path in top.rglob("*.*")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_file_that_a_document_names_exists(document: Path, files: list[str]) -> None:
    missing = []
    for name in NAMED.findall(document.read_text()):
        if (
            name not in ELSEWHERE
            and not (REPO / name).exists()
            and not any(file.endswith(f"/{name}") for file in files)
        ):
            missing.append(name)
    assert not missing, f"{document.name} names {missing}"
