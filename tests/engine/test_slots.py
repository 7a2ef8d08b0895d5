"""Which runs share a device, and with how many threads: decided before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cost import COUNTED, record, run

from vitrepro import memory, provenance, session
from vitrepro.cost import START_SECONDS, Timings, pass_flops
from vitrepro.launch import Group, Need, Slot, arrange, per_device, slots
from vitrepro.memory import Memories
from vitrepro.plan import Run
from vitrepro.session import Request
from vitrepro.store import Store

GB = 2**30
SMALL, LARGE = Need(GB, 1e10), Need(20 * GB, 1e13)
TWO_GPUS = ("cuda:0", "cuda:1")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that says how many cores the machine has."""
    return lambda count: monkeypatch.setattr(provenance, "cores", lambda: count)


def runs(count: int) -> list[Run]:
    return [run(seed=i) for i in range(count)]


def shape(groups: Sequence[Group]) -> list[tuple[int, int, int]]:
    """Of each group: runs, slots, threads of a slot."""
    return [(len(g.runs), len(g.places), g.places[0].threads) for g in groups]


# --- the CPU's cores --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "runs", "expected"),
    [(2, 1, (1, 2)), (2, 2, (2, 1)), (2, 9, (2, 1)), (8, 3, (3, 2)), (8, 5, (5, 1)), (1, 4, (1, 1)), (4, 0, (1, 4))],
)
def test_cores_are_shared_out_among_the_runs_there_are(
    cores: Any, count: int, runs: int, expected: tuple[int, int]
) -> None:
    cores(count)
    places = slots(("cpu",) * count, runs)
    assert (len(places), places[0].threads) == expected


def test_slots_that_the_user_named_stay(cores: Any) -> None:
    cores(4)
    assert slots(("cpu",) * 2, 1, named=True) == (Slot("cpu", 2),) * 2
    assert slots(("cpu",) * 4) == (Slot("cpu", 1),) * 4
    (group,) = arrange(runs(1), ("cpu",) * 2, named=True)
    assert group.places == (Slot("cpu", 2),) * 2


@given(
    count=st.integers(1, 64), n=st.integers(1, 100), begun=st.lists(st.integers(1, 64), max_size=6), more=st.booleans()
)
def test_no_core_is_promised_twice_and_no_run_is_lost(count: int, n: int, begun: list[int], more: bool) -> None:
    some = runs(min(n, 8))
    threads = dict(zip((r.id for r in some), begun, strict=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "cores", lambda: count)
        groups = arrange(some, ("cpu",) * count, named=more, begun=lambda r: threads.get(r.id))
    assert sorted(r.id for g in groups for r in g.runs) == sorted(r.id for r in some)
    for group in groups:
        assert len({p.threads for p in group.places}) == 1  # whichever slot a run gets
        assert sum(p.threads for p in group.places) <= count
        for r in group.runs:
            if threads.get(r.id, count + 1) <= count:
                assert group.places[0].threads == threads[r.id]


def test_a_run_keeps_the_threads_it_was_begun_with(cores: Any) -> None:
    cores(4)
    some = runs(6)
    begun = {some[4].id: 2, some[5].id: 4}
    groups = arrange(some, ("cpu",) * 4, begun=lambda r: begun.get(r.id))
    assert shape(groups) == [(1, 1, 2), (1, 1, 4), (4, 4, 1)]
    assert groups[0].runs == (some[4],)


def test_the_last_run_of_a_killed_command_goes_on_with_one_thread_and_a_new_one_gets_all(cores: Any) -> None:
    cores(2)
    (last,) = some = runs(1)
    assert shape(arrange(some, ("cpu", "cpu"), begun=lambda _: 1)) == [(1, 1, 1)]
    assert shape(arrange(some, ("cpu", "cpu"))) == [(1, 1, 2)]
    # the last run of a command that had two: as many threads as it would have had without a kill
    ((done, _, threads),) = shape(arrange(some, ("cpu", "cpu"), planned=2))
    assert (done, threads) == (1, 1)
    assert shape(arrange(runs(2), ("cpu", "cpu"), begun=lambda r: 1 if r == last else None)) == [(2, 2, 1)]


def test_threads_that_the_machine_no_longer_has_cannot_be_kept(cores: Any) -> None:
    cores(2)
    assert shape(arrange(runs(2), ("cpu", "cpu"), begun=lambda _: 16)) == [(2, 2, 1)]


def test_nothing_to_do_needs_no_slot(cores: Any) -> None:
    cores(2)
    assert arrange([], ("cpu", "cpu")) == ()
    assert arrange([], ("cuda:0",), free_bytes=lambda _: GB) == ()


# --- CUDA devices -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "free", "cores", "expected"),
    [
        ([SMALL], 80 * GB, 16, 8),  # never more
        ([SMALL] * 3, 80 * GB, 4, 4),  # a core each
        ([SMALL], 5 * GB, 16, 4),  # a tenth of the memory is lost
        ([SMALL], GB // 2, 16, 1),  # though it does not fit
        ([Need(GB, 2e11)], 80 * GB, 16, 2),  # 2 ms of arithmetic in each 5 ms
        ([Need(GB, 4e11)], 80 * GB, 16, 1),
        ([LARGE], 80 * GB, 16, 1),
        ([SMALL, LARGE], 80 * GB, 16, 1),  # they may meet
        ([Need(None, 1e10)], 80 * GB, 16, 1),
        ([SMALL, Need(GB, None)], 80 * GB, 16, 1),
        ([Need(0, 0.0)], 80 * GB, 16, 8),
    ],
)
def test_a_device_is_shared_by_as_many_as_fill_it(needs: list[Need], free: int, cores: int, expected: int) -> None:
    assert per_device(needs, free_bytes=free, cores=cores) == expected


def test_small_runs_are_packed_and_large_ones_have_a_device_each(cores: Any) -> None:
    cores(16)
    some = runs(30)
    groups = arrange(
        some,
        TWO_GPUS,
        need=lambda r: LARGE if r.seed % 3 == 0 else SMALL,
        free_bytes=lambda device: {"cuda:0": 80 * GB, "cuda:1": 5 * GB}[device],  # the fuller one decides
    )
    assert shape(groups) == [(20, 8, 2), (10, 2, 8)]
    assert [r.seed for r in groups[0].runs[:4]] == [1, 2, 4, 5]  # in their order
    assert [p.device for p in groups[0].places] == [*TWO_GPUS] * 4


def test_few_small_runs_spread_over_the_devices_with_all_threads(cores: Any) -> None:
    cores(12)
    (group,) = arrange(runs(3), TWO_GPUS, need=lambda _: SMALL, free_bytes=lambda _: 80 * GB)
    assert [(p.device, p.threads) for p in group.places] == [("cuda:0", 4), ("cuda:1", 4), ("cuda:0", 4)]


def test_what_is_not_known_has_its_device_for_itself(cores: Any) -> None:
    cores(16)
    assert shape(arrange(runs(4), TWO_GPUS, free_bytes=lambda _: 80 * GB)) == [(4, 2, 8)]


# --- in a session -----------------------------------------------------------------------------------


def test_the_session_packs_by_what_runs_take(cores: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cores(16)
    monkeypatch.setattr(session, "free_bytes", lambda _: 80 * GB)
    tiny = run()
    huge = run(model={"family": "vit", "variant": "L/16", "image_size": 224}, batch_size=512)
    unknown = run(model={"family": "timm", "name": "resnet18"})
    request = Request(devices=("cuda:0",))
    groups = session.arrange([huge, tiny, unknown, COUNTED], Store(tmp_path), request)
    assert [g.runs for g in groups] == [(tiny, COUNTED), (huge, unknown)]
    known = Memories("cuda:0", [(memory.key(tiny.config), 60 * GB)])  # type: ignore[arg-type]
    groups = session.arrange([tiny, COUNTED], Store(tmp_path), request, known)
    assert [g.runs for g in groups] == [(COUNTED,), (tiny,)]


def begin(store: Store, of: Run, threads: int | None, checkpoint: bool = True) -> None:
    folder = store.run_dir(of.id)
    folder.mkdir(parents=True)
    store.write_config(of.id, {"run": of.name, **({"threads": threads} if threads else {})})
    if checkpoint:
        (folder / "checkpoint-00-000000005.pt").touch()


def test_the_session_keeps_the_threads_of_a_checkpoint_unless_asked_to_start_afresh(cores: Any, tmp_path: Any) -> None:
    cores(4)
    store, request = Store(tmp_path), Request(devices=("cpu",) * 4)
    begun, without, before, fresh = some = runs(4)
    begin(store, begun, 2)
    begin(store, without, 2, checkpoint=False)
    begin(store, before, None)  # by a version that did not say
    assert [store.begun_threads(r.id) for r in some] == [2, None, None, None]
    groups = session.arrange(some, store, request)
    assert [(g.runs, g.places[0].threads) for g in groups] == [((begun,), 2), ((without, before, fresh), 1)]
    assert shape(session.arrange(some, store, Request(devices=("cpu",) * 4, fresh=True))) == [(4, 4, 1)]


def test_the_session_leaves_named_slots_as_they_are(cores: Any, tmp_path: Any) -> None:
    cores(4)
    some, devices = runs(1), ("cpu",) * 4
    assert shape(session.arrange(some, Store(tmp_path), Request(devices=devices))) == [(1, 1, 4)]
    assert shape(session.arrange(some, Store(tmp_path), Request(devices=devices, slots_named=True))) == [(1, 4, 1)]


def test_a_slot_has_its_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        session, "free_bytes", lambda device: {"cuda:0": 12 * GB, "cuda:1": 8 * GB, "cpu": 6 * GB}[device]
    )
    packed = Group((), (Slot("cuda:0", 1), Slot("cuda:1", 1), Slot("cuda:0", 1)))
    alone = Group((), (Slot("cuda:0", 1), Slot("cuda:1", 1)))
    assert session.room([alone], Memories("cuda:0")).slot_bytes == 8 * GB
    assert session.room([packed, alone], Memories("cuda:0")).slot_bytes == 4 * GB
    assert session.room([Group((), (Slot("cpu", 1),) * 3)], Memories("cpu")).slot_bytes == 2 * GB


def test_times_are_told_by_the_group_with_the_fewest_slots() -> None:
    request = Request(devices=("cuda:0",))
    packed, alone = Group((), (Slot("cuda:0", 1),) * 8), Group((), (Slot("cuda:0", 8),))
    assert session.fewest_slots([packed, alone], request) == alone.places
    assert session.fewest_slots([packed], request) == packed.places
    assert [p.device for p in session.fewest_slots([], request)] == ["cuda:0"]


def test_the_session_knows_what_runs_took_on_its_device() -> None:
    from vitrepro.distributed import device_name

    of = run()
    here, there = record(of, device=device_name("cpu"), peak_memory_bytes=77), record(of, peak_memory_bytes=99)
    assert session.memories([here, there], Request()).bytes(of.config) == 77  # type: ignore[arg-type]


# --- what it means for times ------------------------------------------------------------------------


def test_timings_are_of_as_many_threads_as_asked_for() -> None:
    timings = Timings([record(run(), train_seconds=2.0)], "here", 1)
    both = record(run(), train_seconds=1.0)
    both = both.model_copy(update={"environment": both.environment.model_copy(update={"threads": 2})})
    assert timings.at(2).seconds(run()) is None
    timings = Timings([record(run(), train_seconds=2.0), both], "here", 1)
    timings.at(2)
    assert timings.seconds(run()) == pytest.approx(START_SECONDS + 1000 / 500 + 0.5)
    assert timings.at(2).seconds(run()) == pytest.approx(START_SECONDS + 1000 / 1000 + 0.5)
    assert timings.at(2).at(1).seconds(run()) == timings.seconds(run())


def test_threads_do_not_matter_to_the_pace_of_a_cuda_device() -> None:
    there = record(run())
    there = there.model_copy(
        update={"environment": there.environment.model_copy(update={"device": "cuda:0", "threads": 2})}
    )
    timings = Timings([there], "here", 16)
    assert timings.seconds(run()) == timings.at(3).seconds(run()) is not None


def test_runs_shared_by_several_processes_say_nothing_of_one() -> None:
    assert Timings([record(run(), processes=2)], "here", 1).seconds(run()) is None


def test_a_pass_is_three_times_the_forward_pass_of_a_micro_batch() -> None:
    whole, part = pass_flops(run(batch_size=32)), pass_flops(run(batch_size=32, train={"micro_batch": 8}))
    assert whole is not None
    assert part is not None
    assert whole == 4 * part > 0
    assert pass_flops(run(model={"family": "timm", "name": "resnet18"})) is None
    assert pass_flops(COUNTED) == 0.0
