"""focusd as a device of bluesky: `bps.trigger_and_read([focus])` refocuses, and records what was found.

Here focusd owns camera and stage: it runs with the configuration of your microscope, and is calibrated.
"""

import time
from concurrent.futures import ThreadPoolExecutor

from bluesky import RunEngine, plan_stubs, preprocessors

from focusd import Client

FIELDS = ("focus_um", "sigma_um", "shift_um", "exposures")


class Refocusing:
    """A bluesky Status: a refocus that goes on."""

    def __init__(self, pool, client):
        self.work = pool.submit(client.refocus)

    def add_callback(self, callback):
        self.work.add_done_callback(lambda _: callback(self))

    def exception(self, timeout=0.0):
        return self.work.exception(timeout)

    done = property(lambda self: self.work.done())
    success = property(lambda self: self.done and self.work.exception() is None)


class Focus:
    """A bluesky device, Triggerable and Readable."""

    name, parent = "focus", None

    def __init__(self, client):
        self.client, self.pool = client, ThreadPoolExecutor(1)

    def trigger(self):
        self.status = Refocusing(self.pool, self.client)
        return self.status

    def read(self):
        result, now = self.status.work.result(), time.time()
        return {f"focus_{name}": {"value": getattr(result, name), "timestamp": now} for name in FIELDS}

    def describe(self):
        return {f"focus_{name}": {"source": "focusd", "dtype": "number", "shape": []} for name in FIELDS}


@preprocessors.run_decorator()
def three_times(focus):
    for _ in range(3):
        yield from plan_stubs.trigger_and_read([focus])


with Client() as client:
    RunEngine()(three_times(Focus(client)), lambda name, doc: name == "event" and print(doc["data"]))
