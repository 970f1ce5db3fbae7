"""Trains the weights of the tiny chat model: `python train.py` in this folder, some minutes on one core.

Each round takes random conversations of one or two exchanges, some questions in other letters; the loss is taken over
all of the text. It succeeds if every answer comes out as it is written, greedily, alone and as a second question.
"""

from __future__ import annotations

import random
import sys

import torch
from model import BYTES, END, HIDDEN, WEIGHTS, Network, prompt
from safetensors.torch import save_file
from text import DIALOGUES
from torch.nn.functional import cross_entropy

ROUNDS = 1000
BATCH = 24
PADDING = -100


def conversation(rng: random.Random) -> bytes:
    chosen = [rng.choice(DIALOGUES) for _ in range(rng.choice((1, 1, 2)))]
    lines = []
    for question, answer in chosen:
        asked = rng.choice((question, question, question.lower(), question.rstrip("?.!")))
        lines.append(f"> {asked}\n< {answer}\n")
    return "".join(lines).encode()


def batch(rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    texts = [conversation(rng) for _ in range(BATCH)]
    longest = max(map(len, texts))
    data = torch.zeros(BATCH, longest, dtype=torch.long)
    wanted = torch.full((BATCH, longest), PADDING)
    for row, text in enumerate(texts):
        data[row, : len(text)] = torch.tensor(list(text))
        wanted[row, : len(text) - 1] = data[row, 1 : len(text)]
    return data, wanted


@torch.inference_mode()
def answered(network: Network, before: list[dict[str, str]], question: str) -> str:
    data = prompt([*before, {"role": "user", "content": question}])
    logits, state = network(torch.tensor([list(data)]), torch.zeros(1, 1, HIDDEN))
    out: list[int] = []
    while len(out) < 512:
        out.append(int(logits[0, -1].argmax()))
        if out[-1] == END:
            break
        logits, state = network(torch.tensor([[out[-1]]]), state)
    return bytes(out).decode(errors="replace").removesuffix("\n")


def wrong(network: Network) -> list[str]:
    """The questions that aren't answered as they should be."""
    question, answer = DIALOGUES[3]
    before = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    found = [q for q, a in DIALOGUES if answered(network, [], q) != a]
    return found + [f"{q} (second)" for q, a in DIALOGUES if answered(network, before, q) != a]


def main() -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = random.Random(0)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROUNDS, eta_min=1e-4)
    for number in range(1, ROUNDS + 1):
        data, wanted = batch(rng)
        logits, _ = network(data, torch.zeros(1, BATCH, HIDDEN))
        loss = cross_entropy(logits.reshape(-1, BYTES), wanted.reshape(-1), ignore_index=PADDING)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if number % 100 == 0:
            print(f"round {number}: loss {loss.item():.4f}", flush=True)  # noqa: T201
    halves = {name: tensor.half() for name, tensor in network.state_dict().items()}
    save_file(halves, WEIGHTS)
    network.load_state_dict({name: tensor.float() for name, tensor in halves.items()})
    missing = wrong(network)
    for question in missing:
        print(f"wrong: {question}", file=sys.stderr)  # noqa: T201
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
