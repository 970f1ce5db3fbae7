"""Whose fault it is: the model's (it can't be loaded, or doesn't keep to its interface) or the client's."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

# What a model raises to say that the input is at fault.
INPUT_ERRORS = (ValueError, TypeError, KeyError)

_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_BROKEN = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_INTERNAL_ERROR")
_REFUSED = (
    "CUDA error: invalid argument",
    "CUDA error: invalid configuration argument",
    "CUDA error: no kernel image is available",
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED",
)


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
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def breaks(error: BaseException) -> bool:
    """After it the CUDA context is dead: every later call in this process fails too.

    CUDA errors do that, but for memory that isn't there and for a launch that was refused for its arguments. Source:
    CUDA Runtime API, "cudaError": which leave "the process in an inconsistent state".
    """
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    said = str(error)
    return any(text in said for text in _BROKEN) and not any(text in said for text in _REFUSED)
