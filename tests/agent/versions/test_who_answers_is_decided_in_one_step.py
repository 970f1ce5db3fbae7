"""Versions as pure decisions: whatever comes and goes, one answers to a name, and nobody is lost or doubled."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.queue.turns import Turns
from fleet_agent.versions.room import lacking
from fleet_agent.versions.versions import Stage, Versions
from fleet_wire.agent import DeviceMemory, ModelConfig


@dataclasses.dataclass(eq=False)
class Entry:
    config: ModelConfig
    stage: Stage = "coming"


def entry(name: str, version: int) -> Entry:
    return Entry(ModelConfig(name=name, version=str(version), path="/"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "answer", "keep", "leave", "drop"]),
            st.sampled_from("ab"),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_one_answers_to_a_name_and_stages_tell_the_truth(steps: list[tuple[str, str, int]]) -> None:
    versions: Versions[Entry] = Versions([entry("a", 0)])
    everyone, current = versions.everyone, versions.current
    for step, name, number in steps:
        here = [e for e in versions.of(name) if e.config.version == str(number)]
        before = current.get(name)
        if step == "come" or not here:
            versions.come(entry(name, number))
        elif step in ("answer", "keep"):
            replaced = versions.answer(here[0], keep=step == "keep")
            assert current[name] is here[0]
            if before is None or before is here[0]:
                assert replaced is None
            else:
                assert replaced is before
                assert before.stage == ("kept" if step == "keep" else "leaving")
        elif step == "leave":
            versions.leave(here[0])
        else:
            versions.drop(here[0])
            assert here[0] not in everyone
        assert versions.everyone is everyone and versions.current is current
        assert current == {e.config.name: e for e in everyone if e.stage == "answering"}
        assert len({id(e) for e in everyone}) == len(everyone)
        assert not any(e.stage == "gone" for e in everyone)
        for model in everyone:
            if model.stage in ("answering", "kept"):
                named = versions.named(model.config.name, model.config.version)
                assert named is not None and named.config.version == model.config.version
        for name_, answering in current.items():
            assert versions.of(name_)[0] is answering
            assert versions.configs[name_] == answering.config


memories = st.dictionaries(
    st.sampled_from(["cuda:0", "cuda:1"]),
    st.builds(
        DeviceMemory, used_bytes=st.none() | st.integers(0, 100), total_bytes=st.none() | st.integers(0, 100)
    ),
)


@given(need=st.integers(0, 150), devices=memories, freed=st.integers(0, 50), promised=st.integers(0, 50))
def test_what_is_refused_does_not_fit_and_what_is_unknown_refuses_nobody(
    need: int, devices: dict[str, DeviceMemory], freed: int, promised: int
) -> None:
    said = lacking(need, devices, freed, promised)
    known = [m for m in devices.values() if m.used_bytes is not None and m.total_bytes is not None]
    free = [max(0, (m.total_bytes or 0) - (m.used_bytes or 0) - promised) + freed for m in known]
    assert (said is not None) == any(need > room for room in free)
    # More room never makes it worse.
    if said is None:
        assert lacking(need, devices, freed + 1, promised) is None


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "used"]), st.integers(0, 3)), max_size=60))
def test_who_joins_late_has_no_claim_on_the_past_and_who_left_is_not_asked(
    steps: list[tuple[str, int]],
) -> None:
    turns: Turns[int] = Turns([9])
    there = {9}
    for step, model in steps:
        if step == "join":
            turns.join(model)
            there.add(model)
        elif step == "leave":
            turns.leave(model)
            there.discard(model)
        else:
            turns.used(model, 1.0)
        assert sorted(turns.order()) == sorted(there)
