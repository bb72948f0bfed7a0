"""What is measured beside something else that happens to a server: the calls of a good client, and the server's memory."""

import multiprocessing
import threading
import time

from wire import Connections
from world import rss_bytes

FORK = multiprocessing.get_context("fork")


class Beside:
    """A function in a process of its own, which is killed at the end of the `with`."""

    def __init__(self, function, *arguments):
        self.process = FORK.Process(target=function, args=arguments, daemon=True)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()


class GoodClient(Beside):
    """One call after the other, on one connection: how many, and how long each took."""

    CALLS_MAX = 1 << 22

    def __init__(self, address, path, body):
        # Only its own process writes.
        self.count = FORK.RawValue("Q", 0)
        self.took_s = FORK.RawArray("f", self.CALLS_MAX)
        super().__init__(self.work, address, path, body)

    def work(self, address, path, body):
        with Connections(address, 1) as one:
            while self.count.value < self.CALLS_MAX:
                begun = time.perf_counter()
                one.ask(path, [body])
                self.took_s[self.count.value] = time.perf_counter() - begun
                self.count.value += 1

    def during(self, act):
        """Calls a second, and their 99th percentile in seconds, while `act` runs; and what that returns."""
        first, start = self.count.value, time.monotonic()
        returned = act()
        rate = (self.count.value - first) / (time.monotonic() - start)
        took = sorted(self.took_s[first : self.count.value]) or [float("inf")]
        return rate, took[len(took) * 99 // 100], returned


class Memory:
    """The most that a process takes while a `with` lasts."""

    def __init__(self, pid):
        self.pid, self.most, self.is_over = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        while not self.is_over.wait(0.05):
            self.most = max(self.most, rss_bytes(self.pid))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()
