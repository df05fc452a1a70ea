/* Atomics of the slots, one implementation: C11's.
 *
 * Every counter is one machine word. All accesses are relaxed: a slot publishes no other memory, each word means
 * something on its own, and a pick that sees a counter a moment old is a pick made a moment earlier
 * (docs/memory-model.md has the argument). */
#ifndef GRPCLB_ATOMICS_H
#define GRPCLB_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GRPCLB_CACHE_LINES 128 /* bytes: two lines of x86-64 and most AArch64, which are fetched as a pair */

typedef _Atomic(int64_t) grpclb_word;

static inline int64_t grpclb_load(const grpclb_word *word) {
    return atomic_load_explicit((grpclb_word *)word, memory_order_relaxed);
}

static inline void grpclb_store(grpclb_word *word, int64_t value) {
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline int64_t grpclb_add(grpclb_word *word, int64_t value) {
    return atomic_fetch_add_explicit(word, value, memory_order_relaxed);
}

/* Add where no one else can be adding: under the GIL, a load and a store do, and cost a tenth of a locked addition. */
static inline void grpclb_add_held(grpclb_word *word, int64_t value) {
#ifdef Py_GIL_DISABLED
    grpclb_add(word, value);
#else
    grpclb_store(word, grpclb_load(word) + value);
#endif
}

/* A double travels through its word bit by bit. */
static inline double grpclb_load_double(const grpclb_word *word) {
    int64_t bits = grpclb_load(word);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void grpclb_store_double(grpclb_word *word, double value) {
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    grpclb_store(word, bits);
}

/* Take down a flag; true for the one caller who took it. Under the GIL a ticket is never finished by two threads at
 * once, so only builds without the GIL pay for an exchange. */
static inline int grpclb_take(grpclb_word *flag) {
#ifdef Py_GIL_DISABLED
    return atomic_exchange_explicit(flag, 0, memory_order_acq_rel) != 0;
#else
    if (grpclb_load(flag) == 0)
        return 0;
    grpclb_store(flag, 0);
    return 1;
#endif
}

/* Replace a value if it is still the expected one; true for the one caller who replaced it. */
static inline int grpclb_replace(grpclb_word *word, int64_t expected, int64_t value) {
    return atomic_compare_exchange_strong_explicit(word, &expected, value, memory_order_relaxed, memory_order_relaxed);
}

/* A lock that nobody waits for: true for the one caller who got it, the others do without what it guards. Unlike the
 * words, which mean something each on its own, it publishes the memory that it guards. */
static inline int grpclb_try_lock(grpclb_word *lock) {
    int64_t open = 0;
    return atomic_compare_exchange_strong_explicit(lock, &open, 1, memory_order_acquire, memory_order_relaxed);
}

static inline void grpclb_unlock(grpclb_word *lock) {
    atomic_store_explicit(lock, 0, memory_order_release);
}

static inline void *grpclb_aligned_zeroed(size_t bytes) {
    size_t whole = (bytes + GRPCLB_CACHE_LINES - 1) / GRPCLB_CACHE_LINES * GRPCLB_CACHE_LINES;
    void *memory = aligned_alloc(GRPCLB_CACHE_LINES, whole);
    if (memory != NULL)
        memset(memory, 0, whole);
    return memory;
}

#endif
