"""Drives one picker from several threads at once, and shows what its endpoints counted."""

import sys
from threading import Thread

from driver import drive

from grpclb_core.native import P2cEwmaPicker, Slot, View

threads, calls = (int(argument) for argument in (sys.argv[1:] or ("4", "1000000")))

slots = [Slot() for _ in range(4)]
picker = P2cEwmaPicker(View(slots))
drivers = [Thread(target=drive, args=(picker, calls)) for _ in range(threads)]
for thread in drivers:
    thread.start()
for thread in drivers:
    thread.join()

print(f"{threads} threads, {calls} calls each")
for index, slot in enumerate(slots):
    print(
        f"endpoint {index}: {slot.picks} picks, {slot.successes} answered, {slot.failures} failed, "
        f"{slot.in_flight} in flight"
    )
