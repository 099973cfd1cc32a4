/* Linux, Documentation/admin-guide/mm/memory-hotplug.rst and Documentation/core-api/cpu_hotplug.rst. */
#include "system/size.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "system/command_line.h"
#include "system/panic.h"

#define MEMORY "/sys/devices/system/memory"

enum { CPUS_MAX = 1024, BLOCKS_MAX = 4096, OFFLINE_SECONDS = 10 };

static int read_text(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, room - 1);
	int error = size < 0 ? errno : 0;

	if (fd >= 0)
		close(fd);
	text[size > 0 ? size : 0] = 0;
	return error;
}

/* Writes `text` unless the file has `now` already. */
static int change(const char *path, const char *now, const char *text)
{
	char found[32];
	int fd, error = read_text(path, found, sizeof found);

	if (error || !strncmp(found, now, strlen(now)))
		return error;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	error = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return error;
}

int set_cpus(uint64_t count)
{
	for (unsigned i = 1; i < CPUS_MAX; i++) { /* the first is always online */
		const char *state = i < count ? "1" : "0";
		char path[64];
		int error;

		snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/online", i);
		error = change(path, state, state);
		if (error == ENOENT)
			return i < count ? EINVAL : 0;
		if (error)
			return error;
	}
	return 0;
}

static int order(const void *left, const void *right)
{
	unsigned a = *(const unsigned *)left, b = *(const unsigned *)right;

	return a < b ? -1 : a > b;
}

/* The numbers of the blocks, in order: below 4 GiB some are missing. */
static size_t list_blocks(unsigned *blocks)
{
	DIR *directory = opendir(MEMORY);
	size_t count = 0;

	for (struct dirent *entry; directory && count < BLOCKS_MAX && (entry = readdir(directory));)
		if (sscanf(entry->d_name, "memory%u", &blocks[count]) == 1)
			count++;
	if (directory)
		closedir(directory);
	qsort(blocks, count, sizeof *blocks, order);
	return count;
}

static void interrupt(int signal)
{
	(void)signal; /* to take a block out of use, the kernel tries until it succeeds or a signal comes */
}

/*
 * The last block has tables of the firmware and stays in use; of the others the first are used. Memory that comes into use
 * is for programs only: kernel memory cannot be moved, and would keep its block in use.
 */
static int set_blocks(const unsigned *blocks, size_t count, size_t used)
{
	int error = 0;

	for (size_t i = count; !error && i-- > 0;) {
		char path[64];

		snprintf(path, sizeof path, MEMORY "/memory%u/state", blocks[i]);
		error = i + 1 < used || i + 1 == count ? change(path, "online", "online_movable") : change(path, "offline", "offline");
	}
	return error;
}

/* Half of the memory that there is now, as when it was mounted. */
static void fit_tmpfs(const char *path, const char *options)
{
	mount(NULL, path, NULL, MS_REMOUNT | MS_NOSUID | MS_NODEV, options);
}

int set_memory(uint64_t megabytes)
{
	static unsigned blocks[BLOCKS_MAX];
	struct sigaction action = { .sa_handler = interrupt };
	size_t count = list_blocks(blocks);
	char text[32];
	uint64_t block;
	int error = read_text(MEMORY "/block_size_bytes", text, sizeof text);

	if (error)
		return error;
	block = strtoull(text, NULL, 16) >> 20;
	if (!block)
		return EINVAL;
	sigaction(SIGALRM, &action, NULL);
	alarm(OFFLINE_SECONDS);
	error = set_blocks(blocks, count, (size_t)((megabytes + block - 1) / block));
	alarm(0);
	fit_tmpfs("/dev/shm", "mode=1777,size=50%");
	fit_tmpfs("/run", "mode=0755,size=50%");
	return error;
}

void keep_memory(void)
{
	const char *megabytes = command_line("pandastack.memory");

	if (*megabytes && set_memory(strtoull(megabytes, NULL, 10)))
		power_off("cannot put memory out of use");
}
