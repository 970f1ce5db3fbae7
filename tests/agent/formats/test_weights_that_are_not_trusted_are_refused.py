"""A real agent refuses what isn't the pinned file, is a pickle, or can't be served as it is; it says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

NET = {"format": "safetensors", "entrypoint": "model:Net"}


def unusable(files: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Why -> the model that is refused for it."""
    pin = files.weights("net.safetensors")
    moved = [{**pin[0], "sha256": "0" * 64}]
    pickles = {"path": str(files.pickles)}
    trusted = {
        "net": files.weights("net.pt", trust_pickle=True),
        "trap": files.weights("trap.bin", trust_pickle=True),
    }
    trap = str(files.pickles / "trap.bin")
    return {
        "changed": (
            f"net.safetensors has the sha256 {pin[0]['sha256']}, but {'0' * 64} is pinned",
            {**NET, "weights": moved},
        ),
        "changed-class": ("is pinned", {"entrypoint": "model:Wrapped", "weights": moved}),
        "absent": (
            "nothing.safetensors is not in ",
            {**NET, "weights": [{"file": "nothing.safetensors", "sha256": "0" * 64}]},
        ),
        "no-weights": ("takes its weights from files", NET),
        "no-program": ("takes one file under weights", {"format": "export"}),
        "an-entrypoint": (
            "leave entrypoint out",
            {"format": "export", "entrypoint": "model:Net", "weights": files.weights("net.pt2")},
        ),
        "pickle": (
            "net.pt is a pickled checkpoint of torch, which can run any code",
            {**NET, **pickles, "weights": files.weights("net.pt")},
        ),
        "pickle-beside": (
            "trap.bin is a pickled checkpoint of torch",
            {**NET, **pickles, "weights": trusted["net"]},
        ),
        "pickle-elsewhere": (
            "load() reads a pickle (model.py:",
            {"entrypoint": "model:Unpickling", "options": {"file": trap}},
        ),
        "not-torchscript": (
            "net.safetensors is no TorchScript program",
            {"format": "torchscript", "weights": pin},
        ),
        "not-exported": (
            "net.ts is no exported program",
            {"format": "export", "weights": files.weights("net.ts")},
        ),
        "cut-off": ("is no safetensors file", {**NET, "weights": files.weights("broken.safetensors")}),
        "other-class": (
            "the weights don't fit the class: the files lack layer.bias",
            {**NET, "weights": files.weights("other.safetensors")},
        ),
        "other-options": (
            "shapes differ: layer.weight is [3, 4] in the file and [3, 9] in the class",
            {**NET, "weights": pin, "options": {"size": 9}},
        ),
        "unknown-option": (
            "unexpected keyword argument 'sizes'",
            {**NET, "weights": pin, "options": {"sizes": 9}},
        ),
        "no-module": ("is no torch.nn.Module", {**NET, "entrypoint": "model:Wrapped", "weights": pin}),
        "one-at-a-time": (
            "exported for batches of exactly 1 (input x)",
            {"format": "export", "weights": files.weights("one.pt2")},
        ),
        "few": (
            "exported for batches of 1 to 8 (input x)",
            {"format": "export", "weights": files.weights("few.pt2"), "max_batch_size": 9},
        ),
        "dtype-of-a-program": (
            "keeps the dtype that it was exported with",
            {"format": "export", "weights": files.weights("net.pt2"), "compute": {"dtype": "float16"}},
        ),
        "compile-torchscript": (
            "can't see into a TorchScript program",
            {"format": "torchscript", "weights": files.weights("net.ts"), "compute": {"compile": "default"}},
        ),
        "no-module-to-compile": (
            "keeps no torch.nn.Module in an attribute",
            {"entrypoint": "plain:Plain", "compute": {"compile": "default"}},
        ),
        "inputs-of-a-class": (
            "model:Shaped declares its inputs itself: leave inputs out",
            {
                "entrypoint": "model:Shaped",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            },
        ),
        "wrong-inputs": (
            "datatype is one of",
            {
                "format": "torchscript",
                "weights": files.weights("net.ts"),
                "inputs": [{"name": "x", "datatype": "float", "shape": [-1, 4]}],
            },
        ),
    }


@pytest.fixture(scope="module")
def refused(start_shared_agent: Callable[..., Any], files: Any) -> dict[str, str]:
    """What the agent says of each model that it refused."""
    (files.folder / "plain.py").write_text(
        "class Plain:\n    def load(self, device, options): pass\n    def forward(self, batch): return batch\n"
    )
    models = [{**files.model(name), **settings} for name, (_, settings) in unusable(files).items()]
    agent = start_shared_agent(*models, files.model("good", entrypoint="plain:Plain"))
    agent.until(lambda: all(m["ready"] or m["error"] for m in agent.status()["models"]), "done loading")
    assert agent.predict("good", [[1]]).json() == {"predictions": [[1]]}
    return {model["name"]: model["error"] or "" for model in agent.status()["models"]}


CASES = [
    "changed",
    "changed-class",
    "absent",
    "no-weights",
    "no-program",
    "an-entrypoint",
    "pickle",
    "pickle-beside",
    "pickle-elsewhere",
    "not-torchscript",
    "not-exported",
    "cut-off",
    "other-class",
    "other-options",
    "unknown-option",
    "no-module",
    "one-at-a-time",
    "few",
    "dtype-of-a-program",
    "compile-torchscript",
    "no-module-to-compile",
    "inputs-of-a-class",
    "wrong-inputs",
]


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_the_reason(refused: dict[str, str], files: Any, case: str) -> None:
    why = unusable(files)[case][0]
    assert why in refused[case]
    assert refused[case].startswith(f"model {case}: ")
    assert "\n" not in refused[case]


def test_every_case_is_asserted(files: Any) -> None:
    assert sorted(CASES) == sorted(unusable(files))


def test_no_refused_pickle_was_ever_unpickled(refused: dict[str, str], files: Any) -> None:
    assert refused
    assert not files.sprung.exists()


def test_a_trusted_pickle_is_loaded(start_agent: Callable[..., Any], files: Any) -> None:
    """A listed file is; one that only lies beside it is not."""
    weights = files.weights("net.pt", trust_pickle=True)
    other = {
        "file": str(files.pickles / "trap.bin"),
        "sha256": files.sha256("trap.bin"),
        "trust_pickle": True,
    }
    agent = start_agent(
        {**files.model("net"), **NET, "path": str(files.pickles), "weights": weights},
        {
            **files.model("trap"),
            "entrypoint": "model:Unpickling",
            "weights": [other],
            "options": {"file": other["file"]},
        },
    )
    agent.until(lambda: all(m["ready"] or m["error"] for m in agent.status()["models"]), "done loading")
    said = {model["name"]: model["error"] for model in agent.status()["models"]}
    assert "trap.bin is a pickled checkpoint" in said["net"]
    assert said["trap"] is None
    assert files.sprung.exists(), "the trap is real"
