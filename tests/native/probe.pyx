"""Lets tests see what Python cannot: single draws, the two lanes of a slot, and picks made without the GIL."""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.atomics cimport load, store, store_double, word
from grpclb_core.native.draws cimport below, draw, draw_pair
from grpclb_core.native.ewma cimport decay_rate
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport (
    SUCCESS,
    Learning,
    Slot,
    SlotWords,
    close_call,
    in_flight,
    is_surely_alive,
    open_call,
    plain_learning,
)
from grpclb_core.native.view cimport View

cdef Learning learning = plain_learning(0.0)


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


def count_runs(int64_t runs, int64_t seed) -> list:
    """Draw three numbers in a row; return how often each run of their two highest bits came up."""
    cdef list counts = [0] * 64
    cdef int turn, run
    cdef word state
    store(&state, seed)
    for _ in range(runs):
        run = 0
        for turn in range(3):
            run = run << 2 | <int> (draw(&state) >> 62)
        counts[run] += 1
    return counts


def columns(View view not None) -> list:
    """Return the alias table of a view: how many of 2^32 each column leaves to its own member, and who has the rest."""
    if view.columns == NULL:
        return []
    return [(view.columns[place].keep, view.columns[place].other) for place in range(view.count)]


def placement(Slot slot not None) -> tuple:
    """Return how many bytes past a pair of cache lines a slot starts, its size, and where its second line starts."""
    cdef SlotWords* words = slot.words
    return <size_t> words % 128, sizeof(SlotWords), <size_t> &words.successes - <size_t> words


def lanes(Slot slot not None) -> dict:
    """Return the words that are kept twice; of `timed`, the number that its low bits hold."""
    cdef SlotWords* words = slot.words
    return {
        "timed": load(&words.timed) & 0xFFFFF,
        "timed_free": load(&words.timed_free) & 0xFFFFF,
        "successes": load(&words.successes),
        "successes_free": load(&words.successes_free),
    }


def is_alive(Slot slot not None, int64_t now_ns) -> bool:
    return is_surely_alive(slot.words, now_ns)


def open_on(Slot slot not None, int64_t now_ns, bint stream, bint held) -> None:
    """Open a call; without `held`, let go of the GIL for it."""
    cdef SlotWords* words = slot.words
    if held:
        open_call(words, now_ns, stream, True)
    else:
        with nogil:
            open_call(words, now_ns, stream, False)


def close_on(Slot slot not None, int outcome, int64_t started_ns, int64_t now_ns, bint stream, bint held) -> None:
    """End a call; without `held`, let go of the GIL for it."""
    cdef SlotWords* words = slot.words
    if held:
        close_call(words, outcome, started_ns, now_ns, &learning, stream, True)
    else:
        with nogil:
            close_call(words, outcome, started_ns, now_ns, &learning, stream, False)


def answer_as(
    Slot slot not None, int outcome, int64_t latency_ns, int64_t now_ns, *, bint stream=False, double cap_ns=INFINITY,
    double failure_ns=0, double unavailable_ns=0, double rate_limited_ns=0, double most_hint_ns=0, double hint_ns=0
) -> None:
    """Have one call end at `now_ns`, and its endpoint learn from it in this way; a sample lives for 10 s."""
    cdef Learning way = plain_learning(decay_rate(10.0))
    store_double(&way.cap_ns, cap_ns)
    way.failure_ns = failure_ns
    way.unavailable_ns = unavailable_ns
    way.rate_limited_ns = rate_limited_ns
    way.most_hint_ns = most_hint_ns
    open_call(slot.words, now_ns - latency_ns, stream, True)
    close_call(slot.words, outcome, now_ns - latency_ns, now_ns, &way, stream, True, hint_ns)


cdef enum:
    BATCH = 16


def hand_over(Slot slot not None, int64_t batches, bint opened_held) -> None:
    """Open calls in one lane and end them, answered, in the other."""
    cdef SlotWords* words = slot.words
    cdef int64_t batch, now_ns
    cdef int place
    for batch in range(batches):
        now_ns = 2_000 * (batch + 1)
        if opened_held:
            for place in range(BATCH):
                open_call(words, now_ns + place, False, True)
            with nogil:
                for place in range(BATCH):
                    close_call(words, SUCCESS, now_ns + place, now_ns + BATCH, &learning, False, False)
        else:
            with nogil:
                for place in range(BATCH):
                    open_call(words, now_ns + place, False, False)
            for place in range(BATCH):
                close_call(words, SUCCESS, now_ns + place, now_ns + BATCH, &learning, False, True)


cdef enum:
    MOST_OPEN = 64


def work(Picker picker not None, int64_t calls, int open_at_once) -> int:
    """Make calls without the GIL, so many of them open at once and ended in turn by four of the outcomes.

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
                close_call(slots[place], <int> (turn % 4), starts[place], turn + 1, &picker.learning, turn % 8 >= 4, False)
            if turn < calls:
                starts[place] = turn + 1
                slots[place] = picker.view.members[picker.choose(turn + 1)].slot
                open_call(slots[place], turn + 1, (turn + open_at_once) % 8 >= 4, False)
    return below_zero
