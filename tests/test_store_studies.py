"""DICOM instances by study, and what is not published yet."""

from __future__ import annotations

import threading
from dataclasses import replace

from store_samples import observation

from gateway.caller import GATEWAY
from gateway.store import Store
from gateway.store.model import Instance, Put, Unit


def _instance(sop: str = "1.2.3.4", study: str = "1.2", institution: str = "hz", digest: bytes = b"d" * 32) -> Instance:
    key = f"dicom/{institution}/{sop}.{digest[:2].hex()}"
    return Instance(institution, study, f"{study}.3", sop, key, 1000, digest, "CT1",
                    {"SOPInstanceUID": sop, "name": "王^小东", "number": 1})


def test_a_new_instance_makes_its_study_dirty(store: Store) -> None:
    """"new", and the study waits with the times of its oldest and newest change."""
    assert "new" == store.put_instance(_instance("1"))
    assert "new" == store.put_instance(_instance("2"))
    [study] = store.dirty_studies()
    assert ("hz", "1.2", 2) == (study.institution, study.study_instance_uid, study.generation)
    assert study.first_dirty < study.last_dirty
    assert [_instance("1").facts, _instance("2").facts] == store.study_instances(study.key)
    assert _instance("1") == store.instance("1")
    assert store.instance("3") is None


def test_the_same_bytes_change_nothing(store: Store) -> None:
    """A resend is "same": no new generation, no second row."""
    store.put_instance(_instance())
    [before] = store.dirty_studies()
    assert "same" == store.put_instance(_instance())
    assert [before] == store.dirty_studies()
    assert 1 == len(store.study_instances(before.key))


def test_other_bytes_under_the_same_uid_are_set_aside(store: Store) -> None:
    """The first wins; the second is kept apart, once, and neither shows nor counts."""
    first, second = _instance(digest=b"a" * 32), _instance(digest=b"b" * 32)
    assert ["new", "conflict", "conflict", "same"] == [store.put_instance(i) for i in (first, second, second, first)]
    assert first == store.instance("1.2.3.4")
    assert [second] == store.instances("1.2.3.4", aside=True)
    [study] = store.dirty_studies()
    assert (1, 1) == (study.generation, len(store.study_instances(study.key)))


def test_institutions_and_studies_are_apart(store: Store) -> None:
    """The same UID at another hospital, or in another study, is another instance."""
    a, b, c = _instance(), replace(_instance(institution="nb"), digest=b"x" * 32), _instance(study="9.9")
    assert ["new"] * 3 == [store.put_instance(i) for i in (a, b, c)]
    assert 3 == len(store.dirty_studies())
    assert b == store.instance("1.2.3.4", "nb")
    assert [a, b, c] == store.instances("1.2.3.4")


def test_publishing_clears_only_what_was_read(store: Store) -> None:
    """Instances that came after the read keep the study dirty; its oldest unpublished change is then younger."""
    store.put_instance(_instance("1"))
    [read] = store.dirty_studies()
    store.put_instance(_instance("2"))
    store.write(Unit([Put(observation("o", "p"))], published_study=(read.key, read.generation)), GATEWAY)
    [late] = store.dirty_studies()
    assert late.generation == 2 and late.first_dirty > read.first_dirty
    store.write(Unit([], published_study=(late.key, late.generation)), GATEWAY)
    assert [] == store.dirty_studies()
    store.write(Unit([], published_study=(read.key, read.generation)), GATEWAY)
    assert [] == store.dirty_studies()
    store.put_instance(_instance("3"))
    [again] = store.dirty_studies()
    assert again.first_dirty == again.last_dirty > late.last_dirty


def test_many_associations_at_once(store: Store) -> None:
    """Concurrent instances of a few studies, some twice: each is kept once and counted from rows."""
    outcomes: list[str] = []

    def send(association: int) -> None:
        for n in range(20):
            outcomes.append(store.put_instance(_instance(f"{n % 2}.{n}.{association // 2}", f"1.{n % 2}")))
    threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (60, 60) == (outcomes.count("new"), outcomes.count("same"))
    studies = store.dirty_studies()
    assert [30, 30] == [len(store.study_instances(s.key)) for s in studies]
