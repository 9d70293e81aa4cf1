"""Any sequence of writes against a model that is a dict (`gateway/store/README.md`), on both backends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from store_samples import NUMBERS, change, check_consistent, line, observation, patient

from gateway.caller import GATEWAY
from gateway.errors import Category, GatewayError
from gateway.fhir.resource import tail
from gateway.identity import completed
from gateway.store import Store, types
from gateway.store.index import resource_of
from gateway.store.model import Delete, Put, Unit
from gateway.store.schema import STATES

PATIENTS = st.sampled_from([f"p{n}" for n in range(3)])
RESULTS = st.sampled_from([f"o{n}" for n in range(2)])
AS_OF = st.none() | st.integers(1, 3)
PUTS = st.one_of(
    st.builds(lambda p, n, k, a, o: Put(_linked(patient(p, n), k), "hz", a, o), PATIENTS,
              st.sampled_from(["", *NUMBERS[:2]]), st.sets(PATIENTS, max_size=2), AS_OF,
              st.sampled_from(["refuse", "skip"])),
    st.builds(lambda i, p, v, a, o, m: Put(observation(i, p, v), "hz", a, o, m), RESULTS, st.sampled_from("pq"),
              st.sampled_from(["1", "1.0"]), AS_OF, st.sampled_from(["refuse", "skip"]),
              st.sampled_from([None, None, None, 0, 1, 2])))
DELETES = st.builds(Delete, st.just("Observation"), RESULTS) | st.builds(Delete, st.just("Patient"), PATIENTS)


def _linked(resource: dict[str, Any], others: set[str]) -> dict[str, Any]:
    if others:
        resource["link"] = [{"other": {"reference": f"Patient/{p}"}, "type": "seealso"} for p in sorted(others)]
    return resource


@dataclass
class _Resource:
    versions: list[bytes | None] = field(default_factory=list)
    as_of: int | None = None

    @property
    def current(self) -> bytes | None:
        return self.versions[-1] if self.versions else None


class _Refused(Exception):
    pass


def _apply(model: dict[tuple[str, str], _Resource], operation: Put | Delete) -> str:
    """What must become of an operation."""
    if isinstance(operation, Delete):
        held = model.get((operation.resource_type, operation.id))
        if held is None or held.current is None:
            return "absent"
        held.versions.append(None)
        return "deleted"
    key = operation.resource["resourceType"], operation.resource["id"]
    held = model.get(key) or _Resource()
    exists, content = held.current is not None, tail(operation.resource)
    if operation.if_match is not None and operation.if_match != (len(held.versions) if exists else 0):
        raise _Refused
    later = max(filter(None, (held.as_of, operation.as_of)), default=None)
    if exists and held.current == content:
        model[key] = _Resource(held.versions, later)
        return "unchanged"
    if exists and operation.as_of and held.as_of and operation.as_of < held.as_of:
        if operation.on_older == "skip":
            assert held.current is not None
            if key[0] == "Patient" and (made := completed(resource_of(types.key(*key), held.current),
                                                          operation.resource)):
                model[key] = _Resource([*held.versions, tail(made)], held.as_of)
                return "updated"
            return "skipped"
        raise _Refused
    model[key] = _Resource([*held.versions, content], operation.as_of or held.as_of)
    return "updated" if exists else "created"


def _machine(store: Store) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        model: dict[tuple[str, str], _Resource]
        lines: dict[str, list[str]]  # number → states so far

        @initialize()
        def empty(self) -> None:
            self.model, self.lines = {}, {}
            store._writer.submit("call", _clear)

        @rule(operations=st.lists(PUTS | DELETES, min_size=1, max_size=4))
        def write(self, operations: list[Put | Delete]) -> None:
            trial = {key: _Resource(list(r.versions), r.as_of) for key, r in self.model.items()}
            try:
                expected: Any = [_apply(trial, operation) for operation in operations]
                self.model = trial
            except _Refused:
                expected = Category.CONFLICT
            try:
                found: Any = [written.outcome for written in store.write(Unit(list(operations)), GATEWAY)]
            except GatewayError as error:
                found = error.category
            assert expected == found

        @rule(operations=st.lists(PUTS | DELETES, max_size=2),
              decided=st.dictionaries(st.sampled_from("12"), st.tuples(
                  PATIENTS, st.sampled_from(STATES), st.sampled_from([0, 0, 0, -1, 1])), min_size=1))
        def decide(self, operations: list[Put | Delete], decided: dict[str, tuple[str, str, int]]) -> None:
            trial = {key: _Resource(list(r.versions), r.as_of) for key, r in self.model.items()}
            lines = {number: list(states) for number, states in self.lines.items()}
            changes, refused = [], False
            for number, (patient_id, state, off) in decided.items():
                version = max(len(lines.setdefault(number, [])) + off, 0)
                refused |= version != len(lines[number])
                lines[number].append(state)
                changes.append(change(replace(line(number, patient_id), version=version), state))
            try:
                for operation in operations:
                    _apply(trial, operation)
            except _Refused:
                refused = True
            try:
                store.write(Unit(list(operations), ledger=changes), GATEWAY)
                assert not refused
                self.model, self.lines = trial, lines
            except GatewayError as error:
                assert refused and Category.CONFLICT is error.category

        @invariant()
        def lines_are_as_modelled(self) -> None:
            assert self.lines == {number: [event.kind for event in store.events(line(number).id)]
                                  for number in self.lines}
            assert {number: (len(states), states[-1]) for number, states in self.lines.items()} == \
                {found.number: (found.version, found.state) for found in store.lines_where()}
            assert sum(map(len, self.lines.values())) == len(store.events())

        @invariant()
        def everything_is_as_modelled(self) -> None:
            for (kind, resource_id), held in self.model.items():
                history = store.history(kind, resource_id, GATEWAY, 100)
                assert [len(held.versions) - n for n in range(len(held.versions))] == [r.version for r in history]
                assert list(reversed(held.versions)) == [None if r.deleted else r.tail for r in history]
                assert store.read(kind, resource_id, GATEWAY) == history[0]
            assert len(self.model) == check_consistent(store)
    return Machine


def _clear(transaction: Any) -> None:
    for table in ("resource", "history", "patient_person", "person_key", "person_change", "idx_resource", "idx_token",
                  "idx_reference", "idx_date", "idx_string", "idx_quantity", "idx_result", "line", "event", "card"):
        transaction.run(f"DELETE FROM {table}")
    transaction.run("DELETE FROM meta WHERE name = 'ledger'")


@pytest.mark.long
def test_any_sequence_of_units(store: Store) -> None:
    """Outcomes, versions, history, persons, index rows, order lines and events are the model's after every unit."""
    run_state_machine_as_test(_machine(store), settings=settings(
        max_examples=150, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)))
