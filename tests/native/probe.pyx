"""Lets tests see what Python cannot: single draws, and picks made without the GIL."""

from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.atomics cimport store, word
from grpclb_core.native.draws cimport below, draw, draw_pair
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport SlotWords, close_call, in_flight, open_call


def count_pairs(uint32_t count, int64_t draws, int64_t seed) -> list:
    """Draw pairs; return how often each second followed each first."""
    cdef list pairs = [[0] * count for _ in range(count)]
    cdef uint32_t first = 0, second = 0
    cdef word state
    store(&state, seed)
    for _ in range(draws):
        draw_pair(&state, count, &first, &second)
        pairs[first][second] += 1
    return pairs


def count_below(uint32_t bound, uint32_t classes, int64_t draws, int64_t seed) -> list:
    """Draw indices below `bound`; return how often each remainder by `classes` came up."""
    cdef list remainders = [0] * classes
    cdef uint32_t index
    cdef word state
    store(&state, seed)
    for _ in range(draws):
        index = below(&state, bound, <uint32_t> (draw(&state) >> 32))
        assert index < bound
        remainders[index % classes] += 1
    return remainders


def draws(int64_t count, int64_t seed) -> list:
    cdef word state
    store(&state, seed)
    return [draw(&state) for _ in range(count)]


cdef enum:
    MOST_OPEN = 64


def work(Picker picker not None, int64_t calls, int open_at_once) -> int:
    """Make calls without the GIL, so many of them open at once and ended in turn by the four outcomes.

    Returns how often an endpoint was seen with less than no call in flight, which should be never.
    """
    cdef SlotWords* slots[MOST_OPEN]
    cdef int64_t starts[MOST_OPEN]
    cdef int64_t turn, below_zero = 0
    cdef int place
    assert 0 < open_at_once <= MOST_OPEN and calls >= open_at_once
    with nogil:
        for turn in range(calls + open_at_once):
            place = <int> (turn % open_at_once)
            if turn >= open_at_once:
                below_zero += in_flight(slots[place]) < 1  # at least the call that is about to end
                close_call(slots[place], <int> (turn % 4), starts[place], turn + 1, picker.rate, turn % 8 >= 4, False)
            if turn < calls:
                starts[place] = turn + 1
                slots[place] = picker.view.members[picker.choose(turn + 1)].slot
                open_call(slots[place], turn + 1, (turn + open_at_once) % 8 >= 4, False)
    return below_zero
