/*
 * log SEED MILLISECONDS DIRECTORY: appends to logs of outputs, reads them anywhere, and changes how they are kept, at random.
 * Every byte's value follows from its offset, so what is read is checked; so is that nothing needed is dropped, that the
 * cap holds, and that the memory is given back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "processes/log.h"

enum { LOGS = 12, SLACK = 1024 * 1024 + RING_MAX, CAP = 3 * 1024 * 1024 };

static uint64_t state;

/* log.c asks for this when its directory is missing; here it is there. */
int make_parents(const char *path);
int make_parents(const char *path)
{
	(void)path;
	return 0;
}

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

struct subject {
	struct log log;
	uint64_t needed, cap;
	bool spool;
};

static void append(struct subject *s, size_t salt, unsigned long round)
{
	uint8_t *at;
	size_t room = log_room(&s->log, &at, s->needed, s->spool, s->cap);

	check(room <= s->log.size, "more room than memory", round);
	room = room ? 1 + pick((uint32_t)room) : 0;
	for (size_t i = 0; i < room; i++)
		at[i] = value(s->log.end + i, salt);
	log_added(&s->log, room);
}

static void look(struct subject *s, size_t salt, unsigned long round)
{
	static uint8_t bytes[64 * 1024];
	uint64_t kept = log_kept(&s->log), from = s->log.base + (kept ? (uint64_t)pick((uint32_t)kept + 1) : 0);
	size_t size = 1 + pick(sizeof bytes), n = log_read(&s->log, from, bytes, size);

	check(n <= size && from + n <= s->log.end, "more than there is", round);
	check(n || from == s->log.end, "nothing where something is kept", round);
	for (size_t i = 0; i < n; i++)
		check(bytes[i] == value(from + i, salt), "a wrong byte", round);
}

static void turn(struct subject *s, size_t salt, unsigned long round)
{
	uint64_t needed = s->needed, base = s->log.base;

	for (uint32_t times = 1 + pick(40); times > 0; times--)
		append(s, salt, round);
	/* what is needed goes only when it was allowed to be past */
	check(s->log.base <= base || s->log.base <= needed, "what was needed is gone", round);
	check(s->log.base <= s->log.held && s->log.held <= s->log.end, "out of order", round);
	check(!s->cap || log_kept(&s->log) <= s->cap + SLACK, "beyond the cap", round);
	look(s, salt, round);
	switch (pick(6)) {
	case 0: s->needed = UINT64_MAX; break;
	case 1: case 2: s->needed = s->log.base + (uint64_t)pick((uint32_t)log_kept(&s->log) + 1); break;
	case 3: s->spool = true; break;
	}
	if (!pick(100)) { /* the process has ended */
		log_settle(&s->log);
		look(s, salt, round);
		log_free(&s->log);
		s->needed = UINT64_MAX;
		s->spool = pick(2);
		s->cap = pick(4) ? CAP : 0;
	}
}

int main(int argc, char **argv)
{
	static struct subject subjects[LOGS];
	clock_t end = clock() + (argc > 2 ? atol(argv[2]) : 1000) * (CLOCKS_PER_SEC / 1000);
	unsigned long rounds = 0;

	state = argc > 1 ? strtoull(argv[1], NULL, 10) * 2654435761u + 1 : 1;
	log_directory = argc > 3 ? argv[3] : "/tmp";
	for (size_t i = 0; i < LOGS; i++) {
		log_begin(&subjects[i].log);
		subjects[i].needed = UINT64_MAX;
		subjects[i].cap = CAP;
	}
	while (clock() < end) {
		size_t salt = pick(LOGS);

		turn(&subjects[salt], salt, rounds++);
	}
	for (size_t i = 0; i < LOGS; i++)
		log_free(&subjects[i].log);
	printf("%lu rounds\n", rounds);
	return rounds ? 0 : 1;
}
