"""Which device the worker has: by the name in the configuration, and what CUDA calls it."""

from __future__ import annotations

import torch


def resolve(name: str, memory_bound: int) -> torch.device:
    """The torch device behind "auto", "cpu", "cuda" or "cuda:N"; a bound in bytes (0: none) holds on a GPU.

    Raises ValueError or RuntimeError where there is no such device.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("torch finds no usable CUDA device on this machine; use cpu or auto")
        index = device.index or 0
        if index >= torch.cuda.device_count():
            raise ValueError(f"torch finds {torch.cuda.device_count()} CUDA devices, counted from 0")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        total = torch.cuda.get_device_properties(device).total_memory
        if 0 < memory_bound < total:
            torch.cuda.set_per_process_memory_fraction(memory_bound / total, device)
    elif device.type != "cpu":
        raise ValueError("only cpu and cuda devices are served")
    return device


def uuid_of(device: torch.device) -> str | None:
    """CUDA's name for one of its devices, without NVML's prefix; None for others."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
