"""What must hold for whole programs: how they start workers, how they end, and that nothing outlives them."""

from __future__ import annotations

import os
import signal
import sys

import pytest

every_process = pytest.mark.parametrize(
    ("kind", "method"),
    [("process", "fork"), ("zmq", "fork"), ("process", "spawn")],
    ids=["fork", "zmq", "spawn"],
)  # fmt: skip
every_method = pytest.mark.parametrize(
    ("kind", "method"), [("process", "fork"), ("process", "spawn")], ids=["fork", "spawn"]
)

WAITS = """
running = pool(workers=2)
for worker in range(2):  # all are there
    running.send(worker, (os.getpid,))
for worker in range(2):
    running.receive()
running.send(0, (sleep,))
running.send(1, ({busy},))
running.receive()
"""


# Starting


@pytest.mark.parametrize("kind", ["process", "zmq"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_plain_script_needs_no_main_guard_and_runs_once(run, kind, method):
    out = run(
        """
        print("script")
        SCALE = 3
        class Row:
            def __init__(self, value): self.value = value
        def scale(row): return Row(row.value * SCALE)
        running = pool(workers=2)
        for i in range(4):
            running.send(i % 2, (scale, Row(i)))
        rows = [running.receive()[1] for i in range(4)]
        assert all(type(row) is Row for row in rows)
        print(sorted(row.value for row in rows))
        running.close()
        """,
        kind,
        method,
    )
    assert out == "script\n[0, 3, 6, 9]\n"


@every_process
def test_what_a_worker_prints_is_seen_once(run, kind, method):
    out = run(
        """
        print("before", end=" ")
        running = pool(workers=1)
        running.send(0, (print, "in the worker"))
        running.receive()
        running.close()
        print("after")
        """,
        kind,
        method,
    )
    assert (
        sorted(out.split("\n")) == sorted(["in the worker", "before after", ""])
        or out == "before in the worker\nafter\n"
    )


def test_what_travels_to_a_new_interpreter_can_be_a_lambda_a_closure_or_an_imported_function(run):
    out = run(
        """
        import json
        factor = 7
        running = pool(workers=1)
        for call in (lambda: factor, (lambda f: lambda: f + 1)(factor), json.JSONEncoder().encode):
            running.send(0, (call, *([{"a": 1}] if call.__name__ == "encode" else [])))
            print(running.receive()[1])
        running.close()
        """,
        "process",
        "spawn",
    )
    assert out == '7\n8\n{"a": 1}\n'


def test_the_path_of_modules_and_the_arguments_travel_to_a_new_interpreter(run, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "helper_module.py").write_text("def answer(): return 42")
    out = run(
        """
        sys.path.insert(0, "deep")
        sys.argv.append("--option")
        import helper_module
        running = pool(workers=1)
        running.send(0, (helper_module.answer,))
        print(running.receive()[1])
        running.send(0, (lambda: sys.argv[-1],))
        print(running.receive()[1])
        running.close()
        """,
        "process",
        "spawn",
    )
    assert out == "42\n--option\n"


@every_method
def test_queues_locks_and_values_of_multiprocessing_travel(run, kind, method):
    out = run(
        """
        import multiprocessing
        context = multiprocessing.get_context(METHOD)
        queue, lock, event, value = context.Queue(), context.Lock(), context.Event(), context.Value("i", 1)
        queue.put("used before")
        class Shares(Task):
            def __init__(self, *things): self.things = things
            def run(self, inbox, context):
                queue, lock, event, value = self.things
                for number in inbox:
                    with lock:
                        value.value += number
                    queue.put(number)
                    yield event.is_set()
        running = Pool(Shares(queue, lock, event, value), 2, kind=KIND, stage="Stage", start_method=METHOD)
        running.start()
        event.set()
        for i in range(4):
            running.send(i % 2, i)
        print([running.receive()[1] for i in range(4)], value.value)
        running.close()
        print(queue.get(), sorted(queue.get() for i in range(4)))
        """,
        kind,
        method,
    )
    assert out == "[True, True, True, True] 7\nused before [0, 1, 2, 3]\n"


def test_a_task_that_cannot_travel_is_refused_before_any_process_starts(run):
    out = run(
        """
        class Holds(Calls):
            def __init__(self): self.state = {"lock": threading.Lock()}
        try:
            Pool(Holds(), 2, kind=KIND, stage="Stage", start_method=METHOD).start()
        except TypeError as error:
            print(error)
        assert not children()
        """,
        "process",
        "spawn",
    )
    assert out.startswith("task.state['lock'] is a lock and cannot be sent to another process: cannot pickle")


def test_a_task_that_does_not_load_is_an_error_with_its_cause(run):
    out = run(
        """
        import types
        ghost = types.ModuleType("ghost")
        exec("class Ghost: pass", ghost.__dict__)
        sys.modules["ghost"] = ghost
        class Holds(Calls):
            def __init__(self): self.ghost = ghost.Ghost()
        running = Pool(Holds(), 1, kind=KIND, stage="Stage", start_method=METHOD)
        running.start()
        try:
            running.receive()
        except ModuleNotFoundError as error:
            print(error, *error.__notes__, sep="; ")
        """,
        "process",
        "spawn",
    )
    assert out.startswith("No module named 'ghost'; while a new interpreter loaded the task; what it imports must")


def test_the_default_is_fork_until_a_second_thread_runs_and_then_spawn_for_good(run):
    out = run(
        """
        import logging
        logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
        def forked():
            return "dataflow.engine.spawned" not in sys.modules
        def how():
            running = pool(workers=1)
            running.send(0, (forked,))
            print("forked" if running.receive()[1] else "spawned")
            running.close()
        METHOD = None
        how()
        how()
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        how()
        stop.set()
        thread.join()
        how()
        from dataflow.engine import set_start_method
        set_start_method("fork")
        how()
        set_start_method("forkserver")
        how()
        """
    )
    assert out.splitlines() == [
        "worker processes start by fork from now on (1 Python threads run)",
        "forked",
        "forked",
        "worker processes start by spawn from now on (2 Python threads run)",
        "spawned",
        "spawned",
        "forked",
        "spawned",
    ]


def test_a_fork_while_other_threads_hold_locks_does_not_hang(run):
    run(
        """
        import logging
        logging.basicConfig(level="INFO", stream=open(os.devnull, "w"))
        stop = threading.Event()
        def hammer():
            while not stop.is_set():
                logging.info("hammer")
                print("", end="", flush=True)
        threads = [threading.Thread(target=hammer) for i in range(3)]
        for thread in threads: thread.start()
        for i in range(20):
            running = pool(workers=1)
            running.send(0, (os.getpid,))
            running.receive()
            running.close()
        stop.set()
        for thread in threads: thread.join()
        """
    )


@pytest.mark.parametrize("kind", ["process", "zmq"])
def test_a_worker_that_is_killed_as_its_pool_closes_takes_nobody_with_it(run, kind):
    out = run(
        """
        import random
        import numpy as np
        arrays = [np.zeros(300_000, np.uint8) for _ in range(5)]
        for seed in range(80):
            moment = random.Random(seed)
            running = pool(workers=1)
            running.send(0, (os.getpid,))
            pid = running.receive()[1]
            running.send(0, (sleep,))
            for _ in range(8):  # more than the way to a worker holds that does not listen
                running.send(0, (len, arrays))
            time.sleep(moment.uniform(0, 0.003))
            os.kill(pid, signal.SIGKILL)
            time.sleep(moment.choice([0, 0.0001, 0.0002, 0.0005]))
            running.close()
        say("done")
        """,
        kind,
        "fork",
    )
    assert out.endswith("done\n")


@every_process
def test_few_descriptors_are_a_clear_error_and_no_half_of_a_pool(run, kind, method):
    out = run(
        """
        import resource
        running = pool(workers=2)
        running.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        before = os.listdir("/proc/self/fd")
        try:
            pool(workers=40)
        except RuntimeError as error:
            print(type(error).__name__, error)
        assert os.listdir("/proc/self/fd") == before
        assert not children()
        running = pool(workers=2)
        running.send(1, (os.getpid,))
        running.receive()
        running.close()
        """,
        kind,
        method,
    )
    assert out.startswith("WorkerError cannot start worker ")
    assert "of 40 of Stage: [Errno 24] Too many open files. The limit of open files is 64: raise it (ulimit -n)" in out


def test_workers_draw_other_random_numbers_than_their_siblings_and_repeat_them_under_a_seed(run):
    out = run(
        """
        import random
        import numpy as np
        from dataflow import set_seed
        np.random.seed(0); random.seed(0)
        def draws():
            running = pool(workers=2)
            for worker in range(2):
                running.send(worker, (lambda: (random.random(), np.random.rand()),))
            found = dict(running.receive() for worker in range(2))
            running.close()
            return found
        free = [draws(), draws()]
        assert len({number for found in free for pair in found.values() for number in pair}) == 8
        set_seed(5)
        print(draws() == draws())
        """
    )
    assert out == "True\n"


def test_workers_keep_libraries_from_starting_threads(run):
    out = run(
        """
        import cv2
        import numpy as np
        cv2.setNumThreads(2)
        cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (500, 500), interpolation=cv2.INTER_AREA)
        np.ones((600, 600)) @ np.ones((600, 600))
        def threads():
            cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (500, 500), interpolation=cv2.INTER_AREA)
            np.ones((600, 600)) @ np.ones((600, 600))
            with open("/proc/self/maps") as maps:
                (path,) = {line.split()[-1] for line in maps if "scipy_openblas" in line}
            return cv2.getNumThreads(), ctypes.CDLL(path).scipy_openblas_get_num_threads64_()
        running = pool(workers=1)
        running.send(0, (threads,))
        print(running.receive()[1])
        running.close()
        """
    )
    assert out == "(1, 1)\n"


# Living


@every_process
def test_a_pool_that_waits_sleeps(run, kind, method):
    out = run(
        """
        running = pool(workers=2)
        for worker in range(2):
            running.send(worker, (os.getpid,))
        pids = [os.getpid(), *dict(sorted(running.receive() for worker in range(2))).values()]
        def switches(pid):  # how often it has gone to sleep
            with open(f"/proc/{pid}/task/{pid}/status") as status:
                return int(status.read().rpartition("nonvoluntary")[0].split()[-1])
        before, used = [switches(pid) for pid in pids], time.process_time()
        running.send(0, (time.sleep, 0.5))
        running.receive()
        used = time.process_time() - used
        parent, busy, idle = (switches(pid) - n for pid, n in zip(pids, before))
        print(idle <= 1, parent <= 5, busy <= 5, used < 0.05 or used)
        running.close()
        """,
        kind,
        method,
    )
    assert out == "True True True True\n"


@pytest.mark.parametrize("kind", ["process", "zmq", "thread"])
def test_pools_that_are_dropped_again_and_again_leave_nothing(run, kind):
    out = run(
        """
        def cycle():
            running = pool(workers=2)
            running.send(0, (bytes, 1 << 20))
            running.send(1, (bytes, 1 << 20))
            running.receive()
            ring = [running]
            ring.append(ring)
        cycle()
        before = state()
        for i in range(25):
            cycle()
        print(state() == before)
        """,
        kind,
    )
    assert out == "True\n"


def test_a_pool_inside_of_a_worker_works_and_ends_with_it(start):
    program = start(
        """
        class Outer(Task):
            def run(self, inbox, context):
                with pool(workers=2) as inner:
                    for call in inbox:
                        inner.send(0, (call,))
                        yield inner.receive()[1]
        running = Pool(Outer(), 2, kind=KIND, stage="Outer", start_method=METHOD)
        running.start()
        for worker in range(2):
            running.send(worker, os.getppid)
        for _ in range(2):
            worker, parent = running.receive()
            assert parent == running._crew.pid(worker)
        running.send(0, hold_the_gil)
        running.receive()
        """
    )
    assert program.line() == "holding"
    assert len(program.session()) == 7
    program.send(signal.SIGKILL)
    program.finish()


def test_a_child_that_the_user_forks_neither_holds_nor_ends_the_workers(run):
    out = run(
        """
        running = pool(workers=2)
        pid = os.fork()
        if pid == 0:
            links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
            assert not any(link.startswith(("socket", "anon_inode", "/memfd")) for link in links), links
            try:
                running.send(0, (os.getpid,))
            except RuntimeError as error:
                say(error)
            running.close()
            del running
            gc.collect()
            sys.exit()
        os.waitpid(pid, 0)
        running.send(1, (os.getppid,))
        assert running.receive() == (1, os.getpid())
        running.close()
        """
    )
    assert "belongs to process" in out


# Ending


@every_process
@pytest.mark.parametrize("busy", ["sleep", "hold_the_gil"])
def test_workers_do_not_outlive_a_parent_that_is_killed(start, kind, method, busy):
    program = start(WAITS.format(busy=busy), kind, method)
    assert {program.line(), program.line()} <= {"sleeping", "holding"}
    program.send(signal.SIGKILL)
    program.finish()


@every_process
def test_workers_of_a_thread_do_not_outlive_a_parent_that_is_killed(start, kind, method):
    program = start(
        """
        def start_pool():
            global running
            running = pool(workers=2)
        thread = threading.Thread(target=start_pool)
        thread.start()
        thread.join()
        for worker in range(2):
            running.send(worker, (os.getpid,))
        for worker in range(2):
            running.receive()
        running.send(0, (sleep,))
        running.send(1, (hold_the_gil,))
        running.receive()
        """,
        kind,
        method,
    )
    assert {program.line(), program.line()} == {"sleeping", "holding"}
    program.send(signal.SIGKILL)
    program.finish()


@every_process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_workers_end_with_a_parent_that_is_terminated(start, kind, method, number):
    program = start(WAITS.format(busy="hold_the_gil"), kind, method)
    program.line(), program.line()
    program.send(number)
    assert program.finish()[0] == -number


@every_process
def test_ctrl_c_reaches_the_caller_alone_and_ends_all(start, kind, method):
    program = start(WAITS.format(busy="hold_the_gil"), kind, method)
    program.line(), program.line()
    program.send(signal.SIGINT, group=True)
    code, out = program.finish()
    assert (code, out) == (-signal.SIGINT, "")
    errors = program.errors()
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


@every_process
def test_ctrl_c_that_is_caught_leaves_nothing(run, kind, method):
    out = run(
        """
        import random
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        running = pool(workers=1)
        running.close()
        before = state()
        caught = 0
        draw = random.Random(METHOD)
        for i in range(12 if METHOD == "spawn" else 60):  # at any moment: starting, waiting, closing
            running = None  # Ctrl-C may come just before it would be closed
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0005, 0.05))
            try:
                try:
                    running = pool(workers=2)
                    for j in range(3):
                        running.send(1, (time.sleep, 0.01))
                        running.receive()
                finally:
                    if running is not None:
                        running.close()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                caught += 1
                running = None
            assert state() == before, (i, state(), before)
        print(caught > 3)
        """,
        kind,
        method,
    )
    assert out == "True\n"


@every_process
@pytest.mark.parametrize("where", ["main", "daemon", "atexit", "last-value"])
def test_an_interpreter_that_exits_with_a_live_pool_exits_at_once_and_quietly(run, kind, method, where):
    if where != "main" and method == "spawn":
        pytest.skip("the end of the parent is the same")
    out = run(
        f"""
        WHERE = {where!r}
        running = None
        def use():
            global running
            running = pool(workers=2)
            running.send(0, (sleep,))
            while WHERE == "daemon":
                running.receive()
        if WHERE == "daemon":
            threading.Thread(target=use, daemon=True).start()
            waits = time.monotonic() + 1  # it waits by then
            while not running or time.monotonic() < waits:
                time.sleep(0.01)
        elif WHERE == "atexit":
            import atexit
            atexit.register(use)
        elif WHERE == "last-value":
            try:
                use()
                raise ValueError
            except ValueError as error:
                sys.last_value = error
        else:
            use()
        """,
        kind,
        method,
    )
    assert out in ("", "sleeping\n")


@every_process
def test_what_a_worker_still_does_is_ended_by_close_within_two_seconds(run, kind, method):
    out = run(
        """
        os.mkfifo("told")
        told = os.open("told", os.O_RDWR)
        def tell(deaf):  # in C, holding the GIL
            if deaf:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(os.open("told", os.O_WRONLY), b"x")
            sum(range(10**11))
        running = pool(workers=2)
        for worker in range(2):
            running.send(worker, (os.getpid,))
        for worker in range(2):
            running.receive()
        for worker in range(2):
            running.send(worker, (tell, worker))
        for worker in range(2):
            os.read(told, 1)
        begin = time.monotonic()
        running.close()
        say(time.monotonic() - begin < 2.0)
        assert not children()
        """,
        kind,
        method,
    )
    assert out == "True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the sockets stay until the pool closes")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_socket_is_bound_in_a_private_folder_and_nothing_of_it_is_left_when_workers_start(run, method):
    out = run(
        """
        import stat
        from dataflow.engine import zmq_channel
        remove = zmq_channel.ZmqWire._remove_folders
        def look(wire):
            for folder in os.scandir(os.environ["DATAFLOW_PIPEDIR"]):
                print(oct(stat.S_IMODE(folder.stat().st_mode)), len(os.listdir(folder)))
            remove(wire)
        zmq_channel.ZmqWire._remove_folders = look
        running = pool(workers=2)
        print(os.listdir(os.environ["DATAFLOW_PIPEDIR"]))
        running.send(1, (len, "four"))
        print(running.receive())
        running.close()
        """,
        "zmq",
        method,
    )
    assert out == "0o700 1\n0o700 1\n[]\n(1, 4)\n"


@pytest.mark.parametrize("name", ["a" * 150, os.fsdecode(b"caf\xe9")], ids=["long", "latin-1"])
def test_the_folder_for_temporary_files_may_have_any_name(run, tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    out = run(
        """
        del os.environ["DATAFLOW_PIPEDIR"]
        running = pool(workers=1)
        running.send(0, (len, "four"))
        print(running.receive())
        running.close()
        """,
        "zmq",
    )
    assert out == "(0, 4)\n"


def test_a_folder_that_is_too_deep_for_sockets_is_refused(run):
    out = run(
        """
        os.environ["DATAFLOW_PIPEDIR"] = "/" + "a" * 120
        try:
            pool(workers=1)
        except RuntimeError as error:
            print(error)
        """,
        "zmq",
    )
    assert out.startswith("the folder of the sockets has a path of more than 86 bytes: '/aaa")
