"""Random draws: a generator of one word, and an unbiased pair of distinct indices."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from grpclb_core.native.atomics cimport load, store, word

cdef extern from *:
    """
    /* wyrand (Wang Yi, public domain, 2019): one multiplication a draw, and any seed is a good one. */
    #define GRPCLB_STEP 0xA0761D6478BD642FULL
    #define GRPCLB_STEPS 0x939C72E4AF1E62CFULL /* its inverse modulo 2^64 */
    #define GRPCLB_MASK 0xE7037ED1A0B428DBULL
    static inline uint64_t grpclb_mix(uint64_t state) {
        unsigned __int128 product = (unsigned __int128)state * (state ^ GRPCLB_MASK);
        return (uint64_t)(product >> 64) ^ (uint64_t)product;
    }
    """
    const uint64_t STEP "GRPCLB_STEP"
    const uint64_t STEPS "GRPCLB_STEPS"
    uint64_t mix "grpclb_mix"(uint64_t state) noexcept nogil


cdef inline uint64_t draw(word* state) noexcept nogil:
    """Return 64 random bits.

    Load and store are two steps: threads that meet here may draw the same number, which costs a little variety and
    saves every pick a locked instruction.
    """
    cdef uint64_t stepped = <uint64_t> load(state) + STEP
    store(state, <int64_t> stepped)
    return mix(stepped)


cdef inline uint64_t draws_since(int64_t before, const word* state) noexcept nogil:
    """Return how many numbers were drawn since the state was `before`: each draw moves it on by the same step."""
    return <uint64_t> (load(state) - before) * STEPS


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
    second[0] += <uint32_t> (second[0] >= first[0])  # no branch: it would be mispredicted half the time
