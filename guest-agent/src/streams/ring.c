#include "streams/ring.h"

#include <stdlib.h>
#include <string.h>

#include "proto.h"

static uint64_t memory; /* of all rings, beyond what each may have always */

static uint64_t beyond(uint32_t size)
{
	return size > SENT_FIRST ? size - SENT_FIRST : 0;
}

static void give_back(struct ring *ring)
{
	memory -= beyond(ring->size);
	free(ring->bytes);
	ring->bytes = NULL;
	ring->size = 0;
}

void ring_release(struct ring *ring)
{
	if (ring->base == ring->end)
		give_back(ring);
}

/* The part of [offset, offset + length) that lies in one piece. */
static uint32_t piece(const struct ring *ring, uint64_t offset, uint64_t length)
{
	uint64_t contiguous = ring->size - (offset & (ring->size - 1));

	return (uint32_t)(length < contiguous ? length : contiguous);
}

static bool grow(struct ring *ring)
{
	struct ring larger = *ring;

	larger.size = ring->size ? ring->size * 2 : SENT_FIRST;
	if (larger.size > WINDOW || memory - beyond(ring->size) + beyond(larger.size) > SENT_BUDGET)
		return false;
	larger.bytes = malloc(larger.size);
	if (!larger.bytes)
		return false;
	larger.end = larger.base;
	memory += beyond(larger.size);
	while (larger.end < ring->end) {
		uint32_t part = piece(ring, larger.end, ring->end - larger.end);

		ring_add(&larger, ring->bytes + (larger.end & (ring->size - 1)), part);
	}
	give_back(ring);
	*ring = larger;
	return true;
}

uint32_t ring_room(struct ring *ring, uint32_t wanted)
{
	uint64_t room;

	while ((room = ring->size - (ring->end - ring->base)) < wanted && grow(ring))
		;
	return (uint32_t)(room < wanted ? room : wanted);
}

void ring_add(struct ring *ring, const uint8_t *data, uint32_t length)
{
	while (length) {
		uint32_t part = piece(ring, ring->end, length);

		memcpy(ring->bytes + (ring->end & (ring->size - 1)), data, part);
		ring->end += part;
		data += part;
		length -= part;
	}
}

uint32_t ring_read(const struct ring *ring, uint64_t offset, uint8_t *to, uint32_t size)
{
	uint64_t held = ring->end - offset;
	uint32_t part = piece(ring, offset, held < size ? held : size);

	memcpy(to, ring->bytes + (offset & (ring->size - 1)), part);
	return part;
}

void ring_drop(struct ring *ring, uint64_t offset)
{
	ring->base = offset;
}
