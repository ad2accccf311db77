"""Bytes out of band on the channel, of which poll(2) tells and which no receive gets: the host never waits for them."""

import errno
import select
import socket
import time

import pytest

from fxcell import *
from fxcell.sandbox import wire


@zef_function
def send_out_of_band(park):
    import array
    import socket

    import fxcell

    channel = fxcell.run.channel.socket
    if park:  # its own end, on the way in a message never finished: the host would not see it die
        channel.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [channel.fileno()]))])
    try:
        channel.sendmsg([b"x"], [], socket.MSG_OOB)
    except OSError as error:
        return error.errno
    while True:
        pass


def test_control_poll_tells_of_a_byte_that_no_receive_gets():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x", socket.MSG_OOB)
        poller = select.poll()
        poller.register(ours, select.POLLIN)
        assert poller.poll(0)[0][1] & select.POLLIN
        with pytest.raises(BlockingIOError):
            ours.recv(1, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("policy", ["strict", "compute"])
def test_filter_refuses_them(policy):
    worker = FX.StartWorkerProcess(policy=policy) | run
    command = FX.SendCommandToWorkerProcess(process=worker, command=send_out_of_band(False), deadline_s=30.0)
    assert run.outcome(command) == errno.EPERM
    FX.StopWorkerProcess(process=worker) | run


@pytest.mark.parametrize("park", [False, True], ids=["by itself", "with its own channel parked"])
def test_host_meets_its_deadline_where_nothing_refuses_them(park):
    worker = FX.StartWorkerProcess(policy="trusted") | run
    began = time.monotonic()
    command = FX.SendCommandToWorkerProcess(process=worker, command=send_out_of_band(park), deadline_s=1.0)
    outcome = run.submit(command).exception(30)
    assert isinstance(outcome, WorkerCrash)
    assert outcome.reason in (Reason.DEADLINE, Reason.PROTOCOL_VIOLATION)
    assert time.monotonic() - began < 15
    FX.StopWorkerProcess(process=worker) | run


@pytest.mark.parametrize("spin", [False, True])
def test_receive_with_a_deadline_ends_at_it_whatever_comes_out_of_band(spin):
    ours, theirs = socket.socketpair()
    channel = wire.Channel(ours, max_value_bytes=2**20, spin=spin)
    with theirs:
        for _ in range(3):
            theirs.send(b"x", socket.MSG_OOB)
            began = time.monotonic()
            with pytest.raises(wire.DeadlinePassed):
                channel.receive(began + 0.2)
            assert time.monotonic() - began < 5
    channel.close()
