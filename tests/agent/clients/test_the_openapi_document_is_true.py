"""schemathesis asks everything that /openapi.json offers: no 5xx, and no answer that the document doesn't have."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LONG = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# What is asked there stops the models from answering, which is a 503 for the others.
STOPPING = ["/admin/drain", "/v2/repository/models/{name}/unload"]

MODEL = """
class Model:
    embeddings = True

    def load(self, device, options):
        pass

    def preprocess(self, instances):
        return instances

    def forward(self, batch):
        return [[float(len(str(one))), 1.0] for one in batch]
"""


@pytest.mark.parametrize(
    ("name", "examples", "fewest", "phases"),
    [
        pytest.param("text", 10, 60, "fuzzing", marks=pytest.mark.slow),
        pytest.param("text", 300, 4000, "coverage,fuzzing,stateful", marks=LONG),
        pytest.param(None, 300, 4000, "coverage,fuzzing,stateful", marks=LONG),
    ],
)
def test_no_5xx_and_no_violation(
    start_agent: Callable[..., Any],
    written_model: Callable[..., dict[str, Any]],
    tmp_path: Path,
    name: str | None,
    examples: int,
    fewest: int,
    phases: str,
) -> None:
    """With the name of a model that is there in each path, or with any names."""
    agent = start_agent(written_model("text", MODEL)).ready()
    (tmp_path / "schemathesis.toml").write_text(
        "" if name is None else f'[parameters]\n"path.name" = "{name}"\n'
    )
    argv = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml"]
    argv += ["run", f"{agent.url}/openapi.json", "--checks", CHECKS, "--phases", phases, "--no-shrink"]
    argv += [
        "--max-examples",
        str(examples),
        "--seed",
        "1",
        "--continue-on-failure",
        "--request-timeout",
        "20",
    ]
    for path in STOPPING:
        argv += ["--exclude-path", path]
    ran = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=800)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    generated = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
    assert generated is not None, ran.stdout
    print(f"{generated.group(0)}, names {name or 'any'}")
    assert int(generated.group(1)) >= fewest
    assert agent.http.get("/readyz").status_code == 200
    assert "Traceback" not in agent.log()
