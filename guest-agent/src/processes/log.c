#include "processes/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/path.h"

enum { PUNCH_STEP = 1024 * 1024, ALIGNMENT = 4096 };

const char *log_directory = "/var/lib/pandastack/processes";

static size_t memory; /* of all rings, beyond what each may have always */

void log_begin(struct log *log)
{
	memset(log, 0, sizeof *log);
	log->file = -1;
}

static size_t beyond(uint32_t size)
{
	return size > RING_ALWAYS ? size - RING_ALWAYS : 0;
}

static void drop_memory(struct log *log)
{
	memory -= beyond(log->size);
	free(log->ring);
	log->ring = NULL;
	log->size = 0;
}

void log_free(struct log *log)
{
	drop_memory(log);
	if (log->file >= 0)
		close(log->file);
	log_begin(log);
}

uint64_t log_kept(const struct log *log)
{
	return log->end - log->base;
}

/* The part of [offset, offset + length) that lies in memory in one piece. */
static size_t piece(const struct log *log, uint64_t offset, uint64_t length)
{
	uint64_t contiguous = log->size - (offset & (log->size - 1));

	return (size_t)(length < contiguous ? length : contiguous);
}

static uint8_t *place(const struct log *log, uint64_t offset)
{
	return log->ring + (offset & (log->size - 1));
}

static bool grow(struct log *log)
{
	struct log larger = *log;

	larger.size = log->size ? log->size * 2 : RING_FIRST;
	if (larger.size > RING_MAX || memory - beyond(log->size) + beyond(larger.size) > RING_BUDGET)
		return false;
	larger.ring = malloc(larger.size);
	if (!larger.ring)
		return false;
	for (uint64_t at = log->held; at < log->end;) {
		size_t part = piece(log, at, log->end - at), fits = piece(&larger, at, part);

		memcpy(place(&larger, at), place(log, at), fits);
		at += fits;
	}
	drop_memory(log);
	*log = larger;
	memory += beyond(log->size);
	return true;
}

/* Without a name: nobody in the guest can change it, and it goes with the agent's descriptor. */
static int open_file(void)
{
	char name[512];
	int fd = open(log_directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && errno == ENOENT && !make_parents(log_directory) && !mkdir(log_directory, 0700))
		fd = open(log_directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || strlen(log_directory) > sizeof name - 8)
		return fd;
	strcat(strcpy(name, log_directory), "/.new");
	unlink(name);
	fd = open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	unlink(name);
	return fd;
}

/* The oldest `length` bytes leave memory and the file too: only what is newer remains. */
static void lose(struct log *log, uint64_t length)
{
	log->held += length;
	log->base = log->held;
	if (log->file >= 0 && ftruncate(log->file, 0)) {
		close(log->file);
		log->file = -1;
	}
}

static void punch(struct log *log, uint64_t cap)
{
	uint64_t base;

	if (log->held - log->base <= cap + PUNCH_STEP)
		return;
	base = (log->held - cap) & ~(uint64_t)(ALIGNMENT - 1);
	if (base <= log->base)
		return;
	if (fallocate(log->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(log->base & ~(uint64_t)(ALIGNMENT - 1)),
	              (off_t)(base - (log->base & ~(uint64_t)(ALIGNMENT - 1)))))
		lose(log, 0); /* a file system that cannot: begin anew */
	else
		log->base = base;
}

/* False when the file does not take it: then what was not written is still in memory. */
static bool spill(struct log *log, uint64_t length, uint64_t cap)
{
	uint64_t end = log->held + length;

	if (log->file < 0)
		log->file = open_file();
	while (log->held < end) {
		size_t part = piece(log, log->held, end - log->held);
		ssize_t n = log->file < 0 ? -1 : pwrite(log->file, place(log, log->held), part, (off_t)log->held);

		if (n <= 0)
			return false;
		log->held += (uint64_t)n;
	}
	punch(log, cap);
	return true;
}

/* Bytes before `needed` leave, half of the memory at most. */
static bool forget_some(struct log *log, uint64_t needed)
{
	uint64_t spare = needed > log->held ? needed - log->held : 0;

	lose(log, spare < log->size / 2 ? spare : log->size / 2);
	return spare > 0;
}

static bool make_room(struct log *log, uint64_t needed, bool spool, uint64_t cap)
{
	uint64_t after = log->held + log->size / 2;

	if (grow(log))
		return true;
	if (!log->size)
		return false;
	if (!cap)
		return forget_some(log, needed);
	if (!spool && log->size == RING_MAX) /* the host may have taken bytes that its client never got */
		return forget_some(log, needed > BEHIND ? needed - BEHIND : 0);
	if (after - log->base > cap + PUNCH_STEP && needed < after - cap)
		return false; /* the file is full of what is needed */
	return spill(log, log->size / 2, cap) || forget_some(log, needed);
}

size_t log_room(struct log *log, uint8_t **at, uint64_t needed, bool spool, uint64_t cap)
{
	if (log->end - log->held == log->size && !make_room(log, needed, spool, cap))
		return 0;
	*at = place(log, log->end);
	return piece(log, log->end, log->size - (log->end - log->held));
}

void log_added(struct log *log, size_t length)
{
	log->end += length;
}

static size_t read_file(struct log *log, uint64_t offset, uint8_t *to, size_t size)
{
	ssize_t n;

	if (size > log->held - offset)
		size = (size_t)(log->held - offset);
	n = log->file < 0 ? -1 : pread(log->file, to, size, (off_t)offset);
	if (n > 0)
		return (size_t)n;
	lose(log, 0);
	return 0;
}

size_t log_read(struct log *log, uint64_t offset, uint8_t *to, size_t size)
{
	size_t part;

	if (offset >= log->end || offset < log->base)
		return 0;
	if (offset < log->held)
		return read_file(log, offset, to, size);
	part = piece(log, offset, log->end - offset);
	part = part < size ? part : size;
	memcpy(to, place(log, offset), part);
	return part;
}

void log_settle(struct log *log)
{
	if (log->size <= RING_ALWAYS)
		return;
	if (!spill(log, log->end - log->held, UINT64_MAX / 2))
		lose(log, log->end - log->held);
	drop_memory(log);
}
