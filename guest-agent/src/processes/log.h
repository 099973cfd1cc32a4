/* What a process wrote to one of its outputs: the newest bytes in memory, older ones in a file without a name. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	RING_FIRST = 4 * 1024,
	RING_ALWAYS = 16 * 1024, /* every log may have this much memory */
	RING_MAX = 1024 * 1024, /* and grow so far while the budget lasts */
	RING_BUDGET = 8 * 1024 * 1024,
	BEHIND = RING_MAX / 2, /* what stays at least of bytes that were needed and then sent */
};

/* Offsets count from the first byte that was ever written. [base, held) is in the file, [held, end) in memory. */
struct log {
	uint64_t base, held, end;
	uint8_t *ring; /* byte n lies at n modulo the size, a power of two */
	uint32_t size;
	int file; /* byte n lies at n; -1: none */
};

void log_begin(struct log *log);
void log_free(struct log *log);
/*
 * Room for new bytes in one piece, or 0. To make some, bytes leave memory: into the file with `spool`, or when there is
 * little memory; no more than `cap` bytes are kept there. Else they leave for good. Bytes from `needed` on are never dropped: without other room there is none.
 */
size_t log_room(struct log *log, uint8_t **at, uint64_t needed, bool spool, uint64_t cap);
/* The first `length` bytes of the room are filled. */
void log_added(struct log *log, size_t length);
/* Copies bytes from `offset` on, which is not before base; fewer than `size` may come. 0: they are lost, or not there yet. */
size_t log_read(struct log *log, uint64_t offset, uint8_t *to, size_t size);
/* No more will come: gives memory back that is more than a little. */
void log_settle(struct log *log);
/* Bytes that are kept. */
uint64_t log_kept(const struct log *log);

/* Where files of logs are made; set before the first. */
extern const char *log_directory;

#endif
