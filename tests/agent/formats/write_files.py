"""`python write_files.py FOLDER PICKLES`: real model files, written by torch and safetensors into two folders.

A process of its own: exporting warns and logs, which is not the tests' business.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, size=4, classes=3):
        super().__init__()
        self.layer = nn.Linear(size, classes)

    def forward(self, x):
        return torch.tanh(self.layer(x))

class Wrapped:
    def load(self, device, options):
        from safetensors.torch import load_file
        from pathlib import Path
        self.network = Net()
        self.network.load_state_dict(load_file(Path(__file__).parent / "net.safetensors"))
        self.network.to(device).eval()

    def forward(self, batch):
        return self.network(batch)

    def warmup(self):
        return [[0.0] * 4]

class Shaped(Wrapped):
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]

class Unpickling:
    def load(self, device, options):
        torch.load(options["file"], weights_only=False)

    def forward(self, batch):
        return batch
"""


class Net(nn.Module):
    """The same as in SOURCE."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x))


class Two(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b.float(), a.sum(dim=1)


class Trap:
    """A pickle of it creates the file that says that it was unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


def write(folder: Path, pickles: Path) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    (folder / "model.py").write_text(SOURCE)
    (pickles / "model.py").write_text(SOURCE)
    save_file(net.state_dict(), folder / "net.safetensors")
    save_file({"layer.weight": torch.zeros(5, 4)}, folder / "other.safetensors")
    (folder / "broken.safetensors").write_bytes((folder / "net.safetensors").read_bytes()[:90])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save(folder / "net.ts")
    batch = torch.export.Dim("batch")
    x, n = torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.int64)
    for name, program in (
        ("net.pt2", torch.export.export(net, (x,), dynamic_shapes={"x": {0: batch}})),
        ("one.pt2", torch.export.export(net, (torch.zeros(1, 4),))),
        (
            "few.pt2",
            torch.export.export(net, (x,), dynamic_shapes={"x": {0: torch.export.Dim("few", max=8)}}),
        ),
        (
            "two.pt2",
            torch.export.export(Two(), (x,), {"b": n}, dynamic_shapes={"a": {0: batch}, "b": {0: batch}}),
        ),
    ):
        torch.export.save(program, folder / name)
    torch.save(net.state_dict(), pickles / "net.pt")
    torch.save({"trap": Trap(pickles / "sprung")}, pickles / "trap.bin")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
