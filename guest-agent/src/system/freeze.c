/*
 * The freezer of control groups (Linux, Documentation/admin-guide/cgroup-v2.rst, cgroup.freeze). A program that is
 * stopped by it does not see it: no signal, no stopped child, only system calls that are begun anew.
 */
#include "system/freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"

#define GROUP "/sys/fs/cgroup/sandbox"
#define BESIDE "/sys/fs/cgroup/beside"

/* A longer wait would be for programs deep in the kernel, where they draw no random numbers either. */
static const uint64_t FREEZE_NS = 200000000;

static int members = -1, control = -1, events = -1, others = -1;
static bool frozen;

void freeze_prepare(void)
{
	mkdir(GROUP, 0755);
	members = open(GROUP "/cgroup.procs", O_WRONLY | O_CLOEXEC);
	control = open(GROUP "/cgroup.freeze", O_WRONLY | O_CLOEXEC);
	events = open(GROUP "/cgroup.events", O_RDONLY | O_CLOEXEC);
	mkdir(BESIDE, 0755);
	others = open(BESIDE "/cgroup.procs", O_WRONLY | O_CLOEXEC);
}

void freeze_join(void)
{
	if (members >= 0)
		(void)!write(members, "0", 1);
}

bool freeze_avoid(void)
{
	if (others < 0)
		errno = EOPNOTSUPP;
	return others >= 0 && write(others, "0", 1) == 1;
}

/* Whether the group says so of itself. */
static bool says(const char *state)
{
	char text[128];
	ssize_t size = pread(events, text, sizeof text - 1, 0);

	text[size > 0 ? size : 0] = 0;
	return strstr(text, state);
}

void freeze(void)
{
	uint64_t began = now_ns(), spent = 0;

	/* Without programs there is nothing to freeze; a copy then need not run the code that thaws them either. */
	if (control < 0 || events < 0 || frozen || says("populated 0") || write(control, "1", 1) != 1)
		return;
	frozen = true;
	while (!says("frozen 1") && (spent = now_ns() - began) < FREEZE_NS) {
		struct pollfd change = { events, POLLPRI, 0 };

		poll(&change, 1, (int)((FREEZE_NS - spent) / 1000000u) + 1);
	}
}

void thaw(void)
{
	if (frozen && write(control, "0", 1) == 1)
		frozen = false;
}
