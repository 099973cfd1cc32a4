/* Bytes that were sent and may have to be sent again. Offsets count from the first byte that was ever added. */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stdint.h>

enum {
	SENT_FIRST = 16 * 1024, /* every ring may have this much memory */
	SENT_BUDGET = 16 * 1024 * 1024, /* and up to a window while this lasts for all of them */
};

/* It holds [base, end). */
struct ring {
	uint64_t base, end;
	uint8_t *bytes; /* byte n lies at n modulo the size, a power of two */
	uint32_t size;
};

/* How many bytes can be added now, at most `wanted`: fewer when there is no memory. */
uint32_t ring_room(struct ring *ring, uint32_t wanted);
/* No more than that many. */
void ring_add(struct ring *ring, const uint8_t *data, uint32_t length);
/* Copies bytes from `offset` on, which the ring holds; fewer than `size` may come. */
uint32_t ring_read(const struct ring *ring, uint64_t offset, uint8_t *to, uint32_t size);
/* Forgets the bytes before `offset`; the memory stays for the next ones. */
void ring_drop(struct ring *ring, uint64_t offset);
/* Gives the memory back, if nothing is in it. */
void ring_release(struct ring *ring);

#endif
