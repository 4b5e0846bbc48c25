"""What the checks of a flow stand on."""

from __future__ import annotations

import gc
import threading
import time

from dataflow import testing


def test_garbage_is_collected_also_while_another_thread_collects():
    begun, ended = threading.Event(), []

    class Slow:
        def __init__(self):
            self.me = self

        def __del__(self):
            begun.set()
            time.sleep(0.2)

    class Quick(Slow):
        def __del__(self):
            ended.append(True)

    gc.disable()
    try:
        Slow()
        other = threading.Thread(target=gc.collect)
        other.start()
        begun.wait()
        Quick()
        testing._collect()
        assert ended == [True]
    finally:
        gc.enable()
        other.join()
