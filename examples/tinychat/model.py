"""A tiny chat model that really generates: a byte-level GRU of 113,000 weights, trained by train.py on text.py and on
nothing else. It answers the questions in there, much as they are written, and babbles about everything else: it is here
to show streaming and batched steps end to end, not to be clever. Needs nothing but torch and safetensors.

A sequence's state is the GRU's hidden vector and the byte to go in next, so one step of n sequences is one batch of n.
The text that goes in: "> question\n< answer\n> question\n< "; a line's end ends the answer.
Options: `delay_ms` sleeps that long in each step, as a heavier model would keep a device busy.
"""

from __future__ import annotations

import codecs
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

WEIGHTS = Path(__file__).parent / "tinychat.safetensors"
BYTES = 256
EMBEDDED = 48
HIDDEN = 128
END = ord("\n")


class Network(nn.Module):
    """Bytes in (n sequences, any length), the next byte's logits out, with the state to go on from."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(BYTES, EMBEDDED)
        self.recurrent = nn.GRU(EMBEDDED, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, BYTES)

    def forward(self, data: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, state = self.recurrent(self.embed(data), state)
        return self.head(hidden), state


class Sequence:
    """One answer on its way."""

    def __init__(self, hidden: torch.Tensor, last: int, prompt_tokens: int, request: dict[str, Any]) -> None:
        self.hidden = hidden
        self.last = last
        self.prompt_tokens = prompt_tokens
        self.temperature = 1.0 if request.get("temperature") is None else float(request["temperature"])
        self.top_p = 1.0 if request.get("top_p") is None else float(request["top_p"])
        self.random = torch.Generator()
        if request.get("seed") is not None:
            self.random.manual_seed(request["seed"])
        else:
            self.random.seed()
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a letter may be several bytes

    def choose(self, logits: torch.Tensor) -> int:
        """The next byte: the likeliest at temperature 0, else one of the likeliest that together make up `top_p`."""
        if self.temperature == 0.0:
            return int(logits.argmax())
        chances, order = torch.softmax(logits / self.temperature, 0).sort(descending=True)
        chances[chances.cumsum(0) - chances >= self.top_p] = 0.0
        return int(order[torch.multinomial(chances, 1, generator=self.random)])


class TinyChat:
    max_tokens = 512

    def load(self, device: torch.device, options: dict[str, Any]) -> None:
        unknown = sorted(set(options) - {"delay_ms"})
        if unknown:
            raise ValueError(f"unknown option {unknown[0]!r}; TinyChat knows: delay_ms")
        self.delay_s = float(options.get("delay_ms", 0)) / 1000.0
        self.device = device
        self.network = Network()
        self.network.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
        self.network.to(device).eval()

    def begin(self, request: dict[str, Any]) -> Sequence:
        """The prompt goes through the network once; all but its last byte are in the state afterwards."""
        data = prompt(request["messages"])
        read = torch.tensor([list(data[:-1])], device=self.device)
        hidden = torch.zeros(1, 1, HIDDEN, device=self.device)
        _, hidden = self.network(read, hidden)
        return Sequence(hidden[0, 0], data[-1], len(data), request)

    def step(self, sequences: list[Sequence]) -> list[str | None]:
        """The next byte of each, as text; None where the answer is over."""
        data = torch.tensor([[sequence.last] for sequence in sequences], device=self.device)
        hidden = torch.stack([sequence.hidden for sequence in sequences]).unsqueeze(0)
        logits, hidden = self.network(data, hidden)
        if self.delay_s:
            time.sleep(self.delay_s)
        pieces: list[str | None] = []
        for sequence, own, following in zip(sequences, hidden[0].unbind(), logits[:, 0].cpu(), strict=True):
            sequence.hidden = own
            sequence.last = sequence.choose(following)
            ended = sequence.last == END
            pieces.append(None if ended else sequence.decoder.decode(bytes([sequence.last])))
        return pieces

    def prompt_tokens(self, sequence: Sequence) -> int:
        return sequence.prompt_tokens

    def warmup(self) -> list[dict[str, Any]]:
        return [{"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}]


def prompt(messages: list[dict[str, Any]]) -> bytes:
    """The conversation so far as the bytes that the network was trained on."""
    lines = []
    for message in messages:
        sign = "<" if message["role"] == "assistant" else ">"
        lines.append(f"{sign} {' '.join(message['content'].split())}\n")
    return "".join([*lines, "< "]).encode()
