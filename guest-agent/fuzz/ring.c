/*
 * ring SEED MILLISECONDS: fills, reads, drops and releases the rings of tunnels at random. Every byte's value follows from its
 * offset, so what is read is checked; so is that no ring is larger than a window, and that the budget of all is kept.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto.h"
#include "streams/ring.h"

enum { RINGS = 100, PIECE = 32 * 1024 };

static uint64_t state;

static uint32_t pick(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32) % below;
}

static uint8_t value(uint64_t offset, size_t salt)
{
	uint64_t mixed = (offset + salt * 1000003) * 0x9e3779b97f4a7c15u;

	return (uint8_t)(mixed >> 56);
}

static void check(bool fine, const char *what, unsigned long round)
{
	if (fine)
		return;
	fprintf(stderr, "round %lu: %s\n", round, what);
	exit(1);
}

static void add(struct ring *ring, size_t salt, unsigned long round)
{
	static uint8_t bytes[PIECE];
	uint32_t room = ring_room(ring, 1 + pick(PIECE));

	check(ring->end - ring->base + room <= ring->size, "more room than memory", round);
	room = room ? pick(room + 1) : 0;
	for (uint32_t i = 0; i < room; i++)
		bytes[i] = value(ring->end + i, salt);
	ring_add(ring, bytes, room);
}

static void look(const struct ring *ring, size_t salt, unsigned long round)
{
	static uint8_t bytes[PIECE];
	uint64_t held = ring->end - ring->base, from = ring->base + (held ? pick((uint32_t)held) : 0);
	uint32_t n = held ? ring_read(ring, from, bytes, 1 + pick(PIECE)) : 0;

	check(!held || n, "nothing where something is", round);
	check(from + n <= ring->end, "more than there is", round);
	for (uint32_t i = 0; i < n; i++)
		check(bytes[i] == value(from + i, salt), "a wrong byte", round);
}

static void turn(struct ring *ring, size_t salt, unsigned long round)
{
	for (uint32_t times = pick(12); times > 0; times--)
		add(ring, salt, round);
	look(ring, salt, round);
	if (pick(3))
		ring_drop(ring, ring->base + pick((uint32_t)(ring->end - ring->base) + 1));
	if (!pick(20))
		ring_drop(ring, ring->end);
	if (!pick(10))
		ring_release(ring);
}

int main(int argc, char **argv)
{
	static struct ring rings[RINGS];
	clock_t end = clock() + (argc > 2 ? atol(argv[2]) : 1000) * (CLOCKS_PER_SEC / 1000);
	unsigned long rounds = 0;

	state = argc > 1 ? strtoull(argv[1], NULL, 10) * 2654435761u + 1 : 1;
	while (clock() < end) {
		size_t salt = pick(RINGS);
		uint64_t all = 0;

		turn(&rings[salt], salt, rounds++);
		check(rings[salt].size <= WINDOW, "larger than a window", rounds);
		for (size_t i = 0; i < RINGS; i++)
			all += rings[i].size;
		check(all <= SENT_BUDGET + RINGS * SENT_FIRST, "beyond the budget", rounds);
	}
	for (size_t i = 0; i < RINGS; i++) {
		ring_drop(&rings[i], rings[i].end);
		ring_release(&rings[i]);
		check(!rings[i].bytes, "memory is kept", rounds);
	}
	printf("%lu rounds\n", rounds);
	return rounds ? 0 : 1;
}
