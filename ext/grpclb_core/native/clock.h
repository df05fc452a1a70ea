/* Monotonic time in nanoseconds, cheap enough to be read twice a call.
 *
 * On x86-64 Linux the time stamp counter is read directly when the kernel itself keeps time by it (its clock source is
 * "tsc": constant rate, the same on every core), which halves the cost of a reading. Everywhere else, and when
 * GRPCLB_CLOCK=system is set, CLOCK_MONOTONIC answers. Each extension module that includes this file shares the scale
 * that clock.pyx measured, through the pointer `grpclb_clock`. */
#ifndef GRPCLB_CLOCK_H
#define GRPCLB_CLOCK_H

#include <stdint.h>
#include <time.h>

#if defined(__x86_64__) && defined(__linux__)
#include <x86intrin.h>
#define GRPCLB_HAS_COUNTER 1
static inline uint64_t grpclb_counter(void) { return __rdtsc(); }
#else
#define GRPCLB_HAS_COUNTER 0
static inline uint64_t grpclb_counter(void) { return 0; }
#endif

typedef struct {
    uint64_t base_count; /* counter and system time at the same moment */
    int64_t base_ns;
    uint64_t ns_per_count; /* fixed point, 32 fractional bits; 0 = use the system clock */
} grpclb_clock_scale;

static inline int64_t grpclb_system_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t grpclb_scaled_ns(const grpclb_clock_scale *scale, uint64_t count) {
#if GRPCLB_HAS_COUNTER
    int64_t elapsed = (int64_t)(count - scale->base_count);
    return scale->base_ns + (int64_t)(((__int128)elapsed * (int64_t)scale->ns_per_count) >> 32);
#else
    (void)count;
    return scale->base_ns;
#endif
}

static inline int64_t grpclb_now_ns(const grpclb_clock_scale *scale) {
#if GRPCLB_HAS_COUNTER
    if (scale->ns_per_count != 0)
        return grpclb_scaled_ns(scale, grpclb_counter());
#endif
    return grpclb_system_ns();
}

#endif
