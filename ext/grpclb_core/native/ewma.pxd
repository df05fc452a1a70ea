"""Exponential decay, cheap enough for every pick.

Pure functions of their arguments: a reading never writes.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    /* log2(e) in one nanosecond of a decay time of one second: 2^(-t * rate) is e^(-t / decay time). */
    #define GRPCLB_RATE_OF_ONE_SECOND 1.4426950408889634e-9
    /* Below this (14 ms, at a decay time of 10 s) three terms of the series of 2^-x do: the fourth is 3.3e-7 of what is
     * lost by then. Busy endpoints answer more often than that, so this is what most picks need. */
    #define GRPCLB_SHORT_HALVINGS 0.002
    #define GRPCLB_LN_2 0.6931471805599453
    #define GRPCLB_HALF_LN_2_SQUARED 0.24022650695910072
    /* Past this many halvings a double is denormal, and any latency is nothing. */
    #define GRPCLB_MOST_HALVINGS 1000.0
    """
    const double RATE_OF_ONE_SECOND "GRPCLB_RATE_OF_ONE_SECOND"
    const double SHORT_HALVINGS "GRPCLB_SHORT_HALVINGS"
    const double LN_2 "GRPCLB_LN_2"
    const double HALF_LN_2_SQUARED "GRPCLB_HALF_LN_2_SQUARED"
    const double MOST_HALVINGS "GRPCLB_MOST_HALVINGS"


cdef inline double decay_rate(double decay_s) noexcept nogil:
    """Return the halvings per nanosecond that make a mean lifetime of `decay_s`."""
    return RATE_OF_ONE_SECOND / decay_s


cdef inline double halved(double halvings) noexcept nogil:
    """Return 2^-halvings for -MOST_HALVINGS to MOST_HALVINGS, within 4e-7 of it; exactly 1 for none.

    The halvings are split into a whole part, which is an exponent, and a fraction f, for which 2^-f is taken as
    1 - f q(f). The four coefficients after the first are the minimax fit of (1 - 2^-f) / f on [0, 1]: fitted that way,
    1 - halved() is as exact as halved() itself for the fewest halvings, so that a busy endpoint does not decay faster
    for being asked more often. tests/native/test_ewma.py holds both against `math.exp`.
    """
    cdef double lifted, fraction, power
    cdef int64_t whole
    cdef uint64_t bits
    if -SHORT_HALVINGS < halvings < SHORT_HALVINGS:
        return 1.0 - halvings * (LN_2 - halvings * HALF_LN_2_SQUARED)
    lifted = halvings + MOST_HALVINGS  # above 0, where truncation rounds down
    whole = <int64_t> lifted
    fraction = lifted - <double> whole
    bits = <uint64_t> (1023 + <int64_t> MOST_HALVINGS - whole) << 52  # the double 2^-(whole - MOST_HALVINGS)
    memcpy(&power, &bits, sizeof(power))
    return power * (1.0 - fraction * (
        0.6931469163919385 + fraction * (
            -0.24021382398711416 + fraction * (
                0.055404341875059396 + fraction * (-0.009337598858036783 + fraction * 0.001000355135089754)))))


cdef inline double faded(int64_t age_ns, double rate) noexcept nogil:
    """Return e^(-age / decay time); a clock that stepped back counts as no age at all."""
    cdef double halvings = <double> age_ns * rate
    if age_ns <= 0:
        return 1.0
    return halved(halvings) if halvings <= MOST_HALVINGS else 0.0
