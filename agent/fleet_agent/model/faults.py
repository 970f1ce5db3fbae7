"""Whose fault it is: the model's (it can't be loaded, or doesn't keep to its interface) or the client's."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

# What a model raises to say that the input is at fault.
INPUT_ERRORS = (ValueError, TypeError, KeyError)


class ModelFault(Exception):
    """The model can't be loaded or doesn't keep to its interface; str() says which model, what and where."""


class InputFault(Exception):
    """The client sent something that the model doesn't take; str() names the instance where it is known."""


def said(error: BaseException) -> str:
    """What an exception says, with its type where the text alone wouldn't do."""
    if isinstance(error, KeyError):
        return f"no key {error}"
    if type(error) is ValueError and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def place(error: BaseException, folder: Path) -> str:
    """The last line of the user's own that the error went through."""
    inside = str(folder.resolve())
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(inside)]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def is_out_of_memory(error: BaseException) -> bool:
    """The device's memory, or the machine's, didn't hold it: with less to compute it might."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def breaks(error: BaseException) -> bool:
    """CUDA errors other than memory stay: every later call in this process fails too."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)
