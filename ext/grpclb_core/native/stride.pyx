"""Turns by weight: the static stride scheduler of gRPC's weighted round robin, as a picker.

gRPC's (C-core's static_stride_scheduler.cc, gRFC A58) walks round and round over all endpoints, and passes over each in
as many rounds as its weight falls short of the largest one. Three things are different here:

    weights have 32 bits, not 16          a zone that is to get a thousandth, split among many, still gets it
    who weighs more than four times the   so a pick comes to its end in a few steps, whatever the weights; there, one
    mean has several turns in a round     endpoint as heavy as ten thousand others would cost ten thousand steps a
                                          pick, and is cut to ten times the mean for that
    the start is drawn among the turns    there, the first pick favours whoever comes after many that are passed
    that are taken                        over, and a client that makes few between two rebuilds makes few others
"""

import math

cimport cython
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from grpclb_core.native.atomics cimport add, store
from grpclb_core.native.draws cimport draw
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.view cimport View

cdef extern from *:
    """
    /* A reported weight counts for no less and no more than that times the mean: kMinRatio and kMaxRatio of C-core. */
    #define GRPCLB_LEAST_OF_MEAN 0.01
    #define GRPCLB_MOST_OF_MEAN 10.0
    """
    const double LEAST "GRPCLB_LEAST_OF_MEAN"
    const double MOST "GRPCLB_MOST_OF_MEAN"

LEAST_OF_MEAN = LEAST
MOST_OF_MEAN = MOST

cdef extern from *:
    """
    /* 2^32 / golden ratio: multiples of it fill the circle of 2^32 more evenly than those of any other number, so that
     * neighbours pass in different rounds. C-core has 2^31, which leaves two groups that pass together. */
    #define GRPCLB_GOLDEN 0x9E3779B9U
    """
    const uint32_t GOLDEN "GRPCLB_GOLDEN"

# The same for places in a round, as a part of its length.
cdef double GOLDEN_PART = 0.6180339887498949

# The most that one turn is worth, in means. With less of it, more endpoints have several turns, which come less evenly
# than those of one do; with more, more turns are passed over. With four, turns come as evenly as in C-core, and three of
# four are passed over at the worst.
cdef double MOST_OF_A_TURN = 4.0

cdef double WHOLE = 4294967296.0  # 2^32


@cython.final
cdef class StridePicker(Picker):
    """Takes endpoints in turn, each as often as its weight in the view says, times its weight here.

    Args:
        view: the endpoints to choose among, with weights that count as they are.
        weights: what reports make of each endpoint, only ratios count; 0 is unknown and stands for the mean of the
            others. They are cut to between `LEAST_OF_MEAN` and `MOST_OF_MEAN` times that. None if nothing is known.
        decay_s: mean lifetime of a latency sample in seconds.
        seed: makes the turns repeatable; None takes a seed from the system.

    Raises:
        ValueError: not as many weights as endpoints, or one that is negative, infinite or no number; or `decay_s` is
            not above 0.
    """

    def __init__(self, View view not None, weights=None, *, decay_s=10.0, seed=None) -> None:
        if self.turns != NULL:
            raise ValueError("a picker keeps its weights: make another one")
        super().__init__(view, decay_s=decay_s, seed=seed)
        cdef list reported = [] if weights is None else list(weights)
        if weights is not None and len(reported) != view.count:
            raise ValueError(f"{view.count} endpoints need as many weights; got {len(reported)}")
        cdef double* shares = <double*> malloc(view.count * sizeof(double))
        if shares == NULL:
            raise MemoryError(f"no memory for the weights of {view.count} endpoints")
        try:
            self.weigh(shares, reported)
            self.lay_out(shares)
        finally:
            free(shares)
        self.start_at_random()

    def __dealloc__(self) -> None:
        free(self.turns)

    cdef int weigh(self, double* shares, list weights) except -1:
        """Fill in the share of each endpoint, of a mean that is about 1."""
        cdef uint32_t count = self.view.count
        cdef uint32_t place, known = 0
        cdef double weight, largest = 0.0, mean = 0.0
        for place in range(count):
            shares[place] = 1.0 / self.view.members[place].inverse_weight
        for weight in weights:
            if not 0.0 <= weight < math.inf:
                raise ValueError(f"weight {weight!r} is not usable; use 0 or more, and 0 for one that is not known")
            largest = max(largest, weight)
            known += weight > 0.0
        if known == 0:
            return 0
        for weight in weights:
            mean += weight / largest / known  # parts of the largest, as the sum of such numbers may be infinite
        for place in range(count):
            weight = weights[place]
            if weight > 0.0:
                shares[place] *= min(max(weight / largest / mean, LEAST), MOST)
        return 0

    cdef int lay_out(self, const double* shares) except -1:
        """Give each endpoint as many turns as keep each within `MOST_OF_A_TURN`, and spread those over a round."""
        cdef uint32_t count = self.view.count
        cdef uint32_t member, turn, turns, last, step, place = 0
        cdef double total = 0.0, largest = 0.0, mean
        for member in range(count):
            total += shares[member]
        mean = total / count
        self.length = 0
        for member in range(count):
            turns = turns_of(shares[member], mean)
            self.length += turns
            largest = max(largest, shares[member] / turns)
        self.turns = <Turn*> malloc(self.length * sizeof(Turn))
        if self.turns == NULL:
            raise MemoryError(f"no memory for the turns of {count} endpoints")
        step = coprime_step(self.length)
        for member in range(count):
            turns = turns_of(shares[member], mean)
            last = <uint32_t> min(max(shares[member] / turns / largest * WHOLE - 1.0, 0.0), WHOLE - 1.0)
            for turn in range(turns):
                self.turns[place].last = last
                self.turns[place].member = member
                place = <uint32_t> ((<uint64_t> place + step) % self.length)
        return 0

    cdef void start_at_random(self) noexcept nogil:
        """Begin at any turn that is taken, as likely as any other such turn."""
        cdef uint64_t start = draw(&self.state)
        while not is_taken(self.turns, self.length, start):  # a quarter of all are, at least
            start = draw(&self.state)
        store(&self.state, <int64_t> start)

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        """Return whose turn it is: there is one in each round that nobody's weight exceeds, so this comes to an end."""
        cdef uint64_t turn = <uint64_t> add(&self.state, 1)
        while not is_taken(self.turns, self.length, turn):
            turn = <uint64_t> add(&self.state, 1)
        return self.turns[turn % self.length].member


cdef inline bint is_taken(const Turn* turns, uint32_t length, uint64_t turn) noexcept nogil:
    """Tell whether a turn is taken in its round, and not passed over."""
    cdef uint32_t round = <uint32_t> (turn / length)
    cdef uint32_t place = <uint32_t> (turn % length)
    cdef uint32_t last = turns[place].last
    cdef uint32_t stride = last + 1  # modulo 2^32, as all of this: who is never passed over stays where it is
    cdef uint32_t phase = stride * round + place * GOLDEN
    return phase <= last


cdef inline uint32_t turns_of(double share, double mean) noexcept nogil:
    return <uint32_t> max(ceil(share / mean / MOST_OF_A_TURN), 1.0)


cdef inline uint32_t coprime_step(uint32_t length) noexcept nogil:
    """Return about the golden part of a length, such that steps of it come by every place."""
    cdef uint32_t step = max(<uint32_t> (length * GOLDEN_PART), <uint32_t> 1)
    while greatest_common_divisor(step, length) > 1:
        step += 1  # one below the length would do at the latest
    return step


cdef inline uint32_t greatest_common_divisor(uint32_t first, uint32_t second) noexcept nogil:
    while second:
        first, second = second, first % second
    return first
