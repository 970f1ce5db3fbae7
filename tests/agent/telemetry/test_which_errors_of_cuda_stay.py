"""An error after which the process can't compute is told from one that only this batch has."""

from __future__ import annotations

import pytest
import torch

from fleet_agent.model.faults import breaks, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "stays", "memory"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True, False),
        (RuntimeError("CUDA error: unspecified launch failure"), True, False),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True, False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), False, True),
        (RuntimeError("CUDA error: out of memory"), False, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), False, True),
        (RuntimeError("CUDA error: invalid configuration argument"), False, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (ValueError("CUDA error: said by somebody else"), False, False),
    ],
)
def test_by_what_torch_says(error: Exception, stays: bool, memory: bool) -> None:
    assert (breaks(error), is_out_of_memory(error)) == (stays, memory)
