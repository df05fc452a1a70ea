/* XXH64 with seed 0, as specified in doc/xxhash_spec.md of https://github.com/Cyan4973/xxHash (Yann Collet, BSD-2).
 *
 * The hash of gRPC's ring_hash (gRFC A42) and of Envoy's, so that they all make the same ring of the same endpoints. */
#ifndef GRPCLB_XXH64_H
#define GRPCLB_XXH64_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The five primes of the specification. */
#define GRPCLB_PRIME_1 0x9E3779B185EBCA87ULL
#define GRPCLB_PRIME_2 0xC2B2AE3D27D4EB4FULL
#define GRPCLB_PRIME_3 0x165667B19E3779F9ULL
#define GRPCLB_PRIME_4 0x85EBCA77C2B2AE63ULL
#define GRPCLB_PRIME_5 0x27D4EB2F165667C5ULL

static inline uint64_t grpclb_rotate(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

/* Bytes are read as little-endian numbers, whatever the machine. */
static inline uint64_t grpclb_read_32(const unsigned char *bytes) {
    return (uint64_t)bytes[0] | (uint64_t)bytes[1] << 8 | (uint64_t)bytes[2] << 16 | (uint64_t)bytes[3] << 24;
}

static inline uint64_t grpclb_read_64(const unsigned char *bytes) {
    return grpclb_read_32(bytes) | grpclb_read_32(bytes + 4) << 32;
}

static inline uint64_t grpclb_round(uint64_t lane, uint64_t input) {
    return grpclb_rotate(lane + input * GRPCLB_PRIME_2, 31) * GRPCLB_PRIME_1;
}

static inline uint64_t grpclb_merge(uint64_t hash, uint64_t lane) {
    return (hash ^ grpclb_round(0, lane)) * GRPCLB_PRIME_1 + GRPCLB_PRIME_4;
}

static inline uint64_t grpclb_xxh64(const void *data, size_t length) {
    const unsigned char *bytes = (const unsigned char *)data;
    const unsigned char *end = bytes + length;
    uint64_t hash = GRPCLB_PRIME_5;
    if (length >= 32) {
        uint64_t lanes[4] = {GRPCLB_PRIME_1 + GRPCLB_PRIME_2, GRPCLB_PRIME_2, 0, 0 - GRPCLB_PRIME_1};
        for (; end - bytes >= 32; bytes += 32)
            for (int lane = 0; lane < 4; lane++)
                lanes[lane] = grpclb_round(lanes[lane], grpclb_read_64(bytes + 8 * lane));
        hash = grpclb_rotate(lanes[0], 1) + grpclb_rotate(lanes[1], 7) + grpclb_rotate(lanes[2], 12) +
               grpclb_rotate(lanes[3], 18);
        for (int lane = 0; lane < 4; lane++)
            hash = grpclb_merge(hash, lanes[lane]);
    }
    hash += length;
    for (; end - bytes >= 8; bytes += 8)
        hash = grpclb_rotate(hash ^ grpclb_round(0, grpclb_read_64(bytes)), 27) * GRPCLB_PRIME_1 + GRPCLB_PRIME_4;
    if (end - bytes >= 4) {
        hash = grpclb_rotate(hash ^ grpclb_read_32(bytes) * GRPCLB_PRIME_1, 23) * GRPCLB_PRIME_2 + GRPCLB_PRIME_3;
        bytes += 4;
    }
    for (; bytes < end; bytes++)
        hash = grpclb_rotate(hash ^ *bytes * GRPCLB_PRIME_5, 11) * GRPCLB_PRIME_1;
    hash = (hash ^ hash >> 33) * GRPCLB_PRIME_2;
    hash = (hash ^ hash >> 29) * GRPCLB_PRIME_3;
    return hash ^ hash >> 32;
}

#endif
