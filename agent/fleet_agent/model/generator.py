"""A model that generates: keeps the states of its sequences and computes one step of many of them. In the worker only.

The user's class says how a sequence begins and what a step is (`begin`, `step`), or how one text comes (`stream`); then
a step is the next piece of each. What fails takes no neighbour with it: a step that raises is run again in halves, so a
class has to raise before it changes a state. See docs/models.md.
"""

from __future__ import annotations

import itertools
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fleet_agent.model.compute import autocast_of
from fleet_agent.model.faults import INPUT_ERRORS, ModelFault, breaks, is_out_of_memory, said
from fleet_wire.agent import ModelConfig

_DEFAULT_MAX_TOKENS = 1024
_WARM_STEPS = 2

Outcome = tuple[Any, ...]


@dataclass(slots=True)
class Stepped:
    """What became of a step: an outcome per sequence, the smallest number of sequences that the device's memory didn't
    hold, and why the device can't go on.

    outcome: ("said", text, prompt tokens) ("end", prompt tokens) ("refused", code, message); prompt tokens are None but
    with a sequence's first outcome.
    """

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    out_of_memory: int | None = None
    broken: str | None = None


def can_generate(kind: Any) -> bool:
    """Whether the class (or object) has what it takes."""
    has = [callable(getattr(kind, name, None)) for name in ("begin", "step", "stream")]
    return (has[0] and has[1]) or has[2]


class Generator:
    """The sequences of one model on this device. `max_tokens`: the most that an answer may have; `counts_prompt`: it
    says how long a prompt is."""

    def __init__(self, config: ModelConfig, instance: Any, device: torch.device) -> None:
        """Raises ModelFault where the class can't do what is asked."""
        self._name = f"model {config.name}"
        if config.compute.cuda_graphs and device.type == "cuda":
            raise ModelFault(f"{self._name}: compute.cuda_graphs is for forward, not for steps: leave it out")
        self.max_tokens: int = getattr(instance, "max_tokens", _DEFAULT_MAX_TOKENS)
        if type(self.max_tokens) is not int or self.max_tokens < 1:
            raise ModelFault(
                f"{self._name}: max_tokens is a number of tokens, at least 1, not {self.max_tokens!r}"
            )
        counter = getattr(instance, "prompt_tokens", None)
        self.counts_prompt = callable(counter)
        self._count: Callable[[Any], int] | None = counter if callable(counter) else None
        own = callable(getattr(instance, "step", None))
        self._begin: Callable[[dict[str, Any]], Any] = instance.begin if own else _Streamed(instance.stream)
        self._step = autocast_of(config, instance.step if own else _next_of_each, device)
        self._device = device
        self._states: dict[int, Any] = {}

    def step(
        self, joins: Sequence[tuple[int, dict[str, Any]]], runs: Sequence[int], leaves: Sequence[int]
    ) -> Stepped:
        """Forget `leaves`, begin `joins`, compute a step of `runs`."""
        for sequence in leaves:
            self._states.pop(sequence, None)
        stepped = Stepped()
        prompts: dict[int, int] = {}
        with torch.inference_mode():
            for sequence, request in joins:
                try:
                    state = self._states[sequence] = self._begin(request)
                    if self._count is not None:
                        prompts[sequence] = int(self._count(state))
                except Exception as error:  # The user's code may raise anything; the sequence gets it.
                    if isinstance(error, INPUT_ERRORS):
                        stepped.outcomes[sequence] = ("refused", "bad_request", said(error))
                    else:
                        stepped.outcomes[sequence] = self._failed(error, stepped)
            self._advance([n for n in runs if n not in stepped.outcomes], stepped)
        for sequence, outcome in stepped.outcomes.items():
            if outcome[0] != "said":
                self._states.pop(sequence, None)
            if outcome[0] != "refused":
                stepped.outcomes[sequence] = (*outcome, prompts.get(sequence))
        return stepped

    def warm_up(self, requests: list[Any], size: int) -> None:
        """A few steps of one sequence, and of a full batch. Raises ModelFault where one fails."""
        for count in (1, size):
            numbers = [-1 - n for n in range(count)]
            joins = list(zip(numbers, itertools.cycle(requests), strict=False))
            runs = numbers
            for _ in range(_WARM_STEPS):
                stepped = self.step(joins, runs, ())
                for outcome in stepped.outcomes.values():
                    if outcome[0] == "refused":
                        raise ModelFault(outcome[2])
                runs = [n for n in runs if stepped.outcomes[n][0] == "said"]
                joins = []
                if not runs:
                    break
            self.step((), (), numbers)

    def _advance(self, runs: list[int], stepped: Stepped) -> None:
        """One step of all of them, or in halves where that fails."""
        if not runs:
            return
        if stepped.broken is not None:
            stepped.outcomes |= dict.fromkeys(runs, ("refused", "unavailable", stepped.broken))
            return
        too_much = False
        try:
            pieces = list(self._step([self._states[n] for n in runs]))
            if len(pieces) != len(runs):
                message = f"{self._name} gave {len(pieces)} pieces for {len(runs)} sequences"
                stepped.outcomes |= dict.fromkeys(runs, ("refused", "internal", message))
                return
            for sequence, piece in zip(runs, pieces, strict=True):
                stepped.outcomes[sequence] = self._outcome(piece, stepped)
            return
        except (
            Exception
        ) as error:  # The user's code may raise anything; the sequences get it, not the worker.
            too_much = is_out_of_memory(error)
            if len(runs) == 1 or breaks(error):
                stepped.outcomes |= dict.fromkeys(runs, self._failed(error, stepped))
                return
        # Outside of the except block, whose exception keeps the tensors of the failed step alive.
        if too_much:
            stepped.out_of_memory = min(len(runs), stepped.out_of_memory or len(runs))
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        middle = len(runs) // 2
        # The later ones first: if memory holds some only after others have gone, those who came last go.
        self._advance(runs[middle:], stepped)
        self._drop_failed(runs[middle:], stepped)
        self._advance(runs[:middle], stepped)

    def _drop_failed(self, runs: list[int], stepped: Stepped) -> None:
        for sequence in runs:
            if stepped.outcomes[sequence][0] != "said":
                self._states.pop(sequence, None)

    def _outcome(self, piece: Any, stepped: Stepped) -> Outcome:
        if isinstance(piece, str):
            return ("said", piece)
        if piece is None:
            return ("end",)
        if isinstance(piece, Exception):
            return self._failed(piece, stepped)
        return ("refused", "internal", f"{self._name} gave {type(piece).__name__} for a piece of text")

    def _failed(self, error: Exception, stepped: Stepped) -> Outcome:
        if breaks(error):
            traceback.print_exception(error, file=sys.stderr)
            stepped.broken = f"the device failed on this step ({error}); the request may be sent again"
            return ("refused", "unavailable", stepped.broken)
        if is_out_of_memory(error):
            message = (
                f"{self._name}: the device's memory doesn't hold this sequence beside the others: {error}"
            )
            return ("refused", "unavailable", message)
        if isinstance(error, ValueError):
            return ("refused", "bad_request", said(error))
        traceback.print_exception(error, file=sys.stderr)
        return ("refused", "internal", f"{self._name} raised {type(error).__name__}: {error}")


class _Streamed:
    """`begin` for a class that has only `stream`: the state is its iterator."""

    def __init__(self, stream: Callable[[dict[str, Any]], Any]) -> None:
        self._stream = stream

    def __call__(self, request: dict[str, Any]) -> Iterator[str]:
        return iter(self._stream(request))


def _next_of_each(states: Sequence[Iterator[str]]) -> list[str | Exception | None]:
    pieces: list[str | Exception | None] = []
    for state in states:
        try:
            pieces.append(next(state, None))
        except Exception as error:  # The user's code may raise anything; its own sequence gets it.
            pieces.append(error)
    return pieces
