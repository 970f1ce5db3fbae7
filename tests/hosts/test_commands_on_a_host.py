"""Running a command: status, input, output with bounds, time; over SSH and on this machine alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure, printable
from fleet_controller.hosts.ssh.connections import Connections
from fleet_controller.hosts.ssh.transport import SshTransport
from fleet_controller.hosts.transport import Transport
from fleet_controller.spec import FleetSpec


def python(code: str, **more: object) -> Command:
    return Command(("python3", "-I", "-S", "-c", code), **more)  # type: ignore[arg-type]


def test_status_and_both_outputs(transport: Transport) -> None:
    result = transport.run(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"))
    assert (result.status, result.stdout, result.stderr, result.truncated) == (7, b"out\n", b"err\n", False)


def test_a_program_that_is_not_there(transport: Transport) -> None:
    assert transport.run(Command(("no-such-program",))).status == 127


def test_a_signal_is_no_success(transport: Transport) -> None:
    assert transport.run(python("import os; os.kill(os.getpid(), 9)")).status != 0


def test_input_of_five_megabytes_comes_back(transport: Transport) -> None:
    data = bytes(range(256)) * 20_000
    count = "import sys,hashlib; d=sys.stdin.buffer.read(); print(len(d), hashlib.md5(d).hexdigest())"
    assert transport.run(python(count, stdin=data)).stdout.split()[0] == b"5120000"
    echoed = transport.run(Command(("cat",), stdin=data, output_limit=6_000_000))
    assert echoed.stdout == data


def test_input_that_nobody_reads(transport: Transport) -> None:
    assert transport.run(Command(("true",), stdin=b"x" * 5_000_000)).status == 0


def test_output_keeps_its_beginning_and_its_end(transport: Transport) -> None:
    result = transport.run(python("print('begin' + 'x' * 10_000_000 + 'end')"))
    assert result.truncated
    assert len(result.stdout) == 64 * 1024
    assert result.stdout.startswith(b"begin")
    assert result.stdout.endswith(b"end\n")


def test_endless_output_is_cut_off(transport: Transport) -> None:
    with pytest.raises(HostFailure) as caught:
        transport.run(Command(("yes",)))
    assert caught.value.kind == "output"


def test_a_command_that_does_not_end(transport: Transport) -> None:
    began = time.monotonic()
    with pytest.raises(HostFailure) as caught:
        transport.run(Command(("sleep", "60"), timeout_s=0.5))
    assert time.monotonic() - began < 3
    assert caught.value.kind == "timeout"
    assert "0.5 s" in caught.value.cause
    assert transport.run(Command(("echo", "still here"))).stdout == b"still here\n"


def test_a_child_that_keeps_the_output_open_is_not_waited_for(transport: Transport) -> None:
    began = time.monotonic()
    result = transport.run(Command(("sh", "-c", "sleep 5 & echo done")))
    assert result.stdout == b"done\n"
    assert time.monotonic() - began < 4


def test_output_is_heard_while_the_command_runs(transport: Transport) -> None:
    heard = threading.Event()
    code = "import sys,time; print('now', flush=True); sys.stdin.read(); time.sleep(1.5); print('later')"
    times: list[float] = []

    def hear(data: bytes) -> None:
        times.append(time.monotonic())
        heard.set()

    transport.run(python(code), hear)
    assert heard.is_set()
    assert times[-1] - times[0] > 1.0


def test_twenty_at_once(transport: Transport) -> None:
    said: list[bytes] = []

    def run(number: int) -> None:
        said.append(transport.run(Command(("echo", str(number)))).stdout)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(line) for line in said) == list(range(20))


@pytest.mark.machine
def test_a_connection_that_breaks_while_a_command_runs_leaves_its_outcome_unknown(
    host: Host, fleet_of: Callable[..., FleetSpec]
) -> None:
    connections = Connections(fleet_of([host.entry()]))
    transport = SshTransport(connections.to_host("h1"), 20)
    started = threading.Event()
    failures: list[HostFailure] = []

    def run() -> None:
        try:
            transport.run(Command(("sh", "-c", "echo go; sleep 30")), lambda data: started.set())
        except HostFailure as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    host.drop_logins()
    thread.join(10)
    assert [failure.kind for failure in failures] == ["lost"]
    assert failures[0].unreachable
    assert "unknown" in failures[0].cause
    assert transport.run(Command(("echo", "again"))).stdout == b"again\n"
    connections.close()


def test_what_a_machine_says_cannot_move_the_cursor() -> None:
    text = printable(
        b"\x1b[2J\x1b]0;title\x07 caf\xc3\xa9 \xff\xfe \x00 tab\tline\r\nend\x9b31m\x7f\xe2\x80\xae"
    )
    assert not any(c in text for c in "\x1b\x07\x00\x9b\x7f\r\u202e")
    assert "café" in text
    assert "tab\tline\nend" in text
