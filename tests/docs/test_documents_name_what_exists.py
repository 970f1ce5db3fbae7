"""Documents don't rot unseen: every file they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
NAMED = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|yaml|toml))`")
# What users have, not the repository.
ELSEWHERE = {"model.py", "fleet.yaml", "agent.json", "config.json"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    missing = []
    for name in NAMED.findall(document.read_text()):
        if name not in ELSEWHERE and not (REPO / name).exists() and not any(REPO.glob(f"*/**/{name}")):
            missing.append(name)
    assert not missing, f"{document.name} names {missing}"
