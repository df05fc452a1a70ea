"""Random draws: a generator of one word, and an unbiased pair of distinct indices."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from grpclb_core.native.atomics cimport load, store, word

cdef extern from *:
    """
    /* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). Any seed is a good one. */
    #define GRPCLB_GAMMA 0x9E3779B97F4A7C15ULL
    #define GRPCLB_FIRST_MIX 0xBF58476D1CE4E5B9ULL
    #define GRPCLB_SECOND_MIX 0x94D049BB133111EBULL
    """
    const uint64_t GAMMA "GRPCLB_GAMMA"
    const uint64_t FIRST_MIX "GRPCLB_FIRST_MIX"
    const uint64_t SECOND_MIX "GRPCLB_SECOND_MIX"


cdef inline uint64_t draw(word* state) noexcept nogil:
    """Return 64 random bits.

    Load and store are two steps: threads that meet here may draw the same number, which costs a little variety and
    saves every pick a locked instruction.
    """
    cdef uint64_t mixed = <uint64_t> load(state) + GAMMA
    store(state, <int64_t> mixed)
    mixed = (mixed ^ (mixed >> 30)) * FIRST_MIX
    mixed = (mixed ^ (mixed >> 27)) * SECOND_MIX
    return mixed ^ (mixed >> 31)


cdef inline uint32_t below(word* state, uint32_t bound, uint32_t bits) noexcept nogil:
    """Return an index in [0, bound) made of `bits`, drawing anew where keeping them would favour some indices.

    Multiply and reject (Lemire, "Fast random integer generation in an interval", 2019).
    """
    cdef uint64_t product = <uint64_t> bits * bound
    cdef uint32_t unfair
    if <uint32_t> product < bound:
        unfair = (<uint32_t> 0 - bound) % bound
        while <uint32_t> product < unfair:
            product = (draw(state) >> 32) * bound
    return <uint32_t> (product >> 32)


cdef inline void draw_pair(word* state, uint32_t count, uint32_t* first, uint32_t* second) noexcept nogil:
    """Draw two distinct indices below `count` (at least 2), every ordered pair as likely as any other.

    The second is drawn from the others only: it skips the first, which sits in its range as a hole.
    """
    cdef uint64_t bits = draw(state)
    first[0] = below(state, count, <uint32_t> (bits >> 32))
    second[0] = below(state, count - 1, <uint32_t> bits)
    if second[0] >= first[0]:
        second[0] += 1
