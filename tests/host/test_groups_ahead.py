"""Groups made ahead of need: the worker that is kept ready goes into its own by itself, and the host looks whether it did."""

import os
import signal
import time

import psutil
import pytest

from fxcell import FX, load_policy, run, zef_function
from fxcell.host import cgroups, registry, templates
from fxcell.sandbox.kernel import processes
from fxcell.sandbox.kernel.cgroup import Group
from tests import leaks

pytestmark = pytest.mark.skipif(not cgroups.workers_can_enter(), reason="needs cgroup v1 groups that this user can make")


@zef_function
def nothing():
    return None


@pytest.fixture
def policy(tmp_path):
    """One whose template nobody else uses."""
    (tmp_path / "own.toml").write_text('extends = "compute"\n[limits]\nopen_files = 66\n')
    policy = load_policy(tmp_path / "own.toml")
    with leaks.assert_nothing_left():
        yield policy
        templates.close(policy)


@pytest.fixture
def moved(monkeypatch):
    """The processes that the host moved into a group."""
    pids = []
    enter = Group.enter
    monkeypatch.setattr(Group, "enter", lambda group, pid: (pids.append(pid), enter(group, pid))[1])
    return pids


def start(policy):
    worker = FX.StartWorkerProcess(policy=policy) | run
    session = registry.session_of(worker)
    (inside,) = processes.children_of(session.pid)
    return worker, session._handles.group, inside


def wait_for_a_member(group):
    end = time.monotonic() + 10
    while not group.members() and time.monotonic() < end:
        os.sched_yield()  # it is on its way
    return group.members()


def stop(workers):
    for worker in workers:
        FX.SendCommandToWorkerProcess(process=worker, command=nothing()) | run
        FX.StopWorkerProcess(process=worker) | run


def test_all_workers_but_the_first_are_in_their_own_groups_without_being_moved(policy, moved):
    started = [start(policy) for _ in range(4)]
    assert moved == [started[0][2]]
    assert [group.members() for _, group, _ in started] == [[inside] for _, _, inside in started]
    assert len({path for _, group, _ in started for path in group.paths}) == sum(len(g.paths) for _, g, _ in started)
    stop(worker for worker, _, _ in started)


def test_worker_that_did_not_go_into_its_group_is_put_there(policy, moved, monkeypatch):
    monkeypatch.setattr(Group, "doors", lambda _group: [])
    started = [start(policy) for _ in range(3)]
    assert moved == [inside for _, _, inside in started]
    assert all(group.holds(inside) for _, group, inside in started)
    stop(worker for worker, _, _ in started)


def test_worker_in_another_group_than_the_host_thinks_is_put_into_the_right_one(policy, moved):
    first = start(policy)
    template = templates.template_for(policy)
    spare = template.spare_group
    template.spare_group = cgroups.group_for(policy.limits)
    second = start(policy)
    assert moved == [first[2], second[2]]
    assert second[1].members() == [second[2]]
    assert spare.remove()
    stop([first[0], second[0]])


def test_spare_that_died_leaves_its_group_to_the_worker_forked_in_its_place(policy, moved):
    first = start(policy)
    group = templates.template_for(policy).spare_group
    (spare,) = wait_for_a_member(group)
    supervisor = psutil.Process(spare).parent()
    os.kill(spare, signal.SIGKILL)
    end = time.monotonic() + 10
    while supervisor.is_running() and time.monotonic() < end:
        os.sched_yield()  # until the template has reaped it: it knows then
    second = start(policy)
    assert second[1] is group
    assert group.members() == [second[2]]
    assert moved == [first[2]]
    stop([first[0], second[0]])
