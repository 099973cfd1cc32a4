/*
 * The files belong to the user, who may edit, replace or remove them: only what is ours in them is changed, in place, and a
 * file that cannot be changed stays as it is. A machine must come up when its disk is full, too.
 */
#include "system/names.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { HOSTS_MAX = 64 * 1024, NAME_MAX_LENGTH = 64 };

static const char address[] = "127.0.1.1";
static const char first_name[] = "localhost";
static const char usual_hosts[] = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/*
 * A regular file of the root, made if there is none, or -1. What is mounted over the path is not touched: the program that
 * serves it may be frozen.
 */
static int open_file(const char *path)
{
	struct open_how how = {
		.flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
		.mode = 0644,
		.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void write_line(const char *path, const char *text, size_t length)
{
	char line[NAME_MAX_LENGTH + 1], there[NAME_MAX_LENGTH + 2];
	int fd = open_file(path);

	if (fd < 0)
		return;
	memcpy(line, text, length);
	line[length] = '\n';
	if (pread(fd, there, sizeof there, 0) == (ssize_t)length + 1 && !memcmp(there, line, length + 1))
		; /* a guest that continues where it stopped */
	else if (pwrite(fd, line, length + 1, 0) == (ssize_t)length + 1)
		(void)!ftruncate(fd, (off_t)length + 1);
	close(fd);
}

/* The address at the beginning of a line of ours, or NULL. */
static char *find_line(char *hosts)
{
	const size_t length = sizeof address - 1;

	for (char *line = hosts; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, address, length) && isblank((unsigned char)line[length]))
			return line;
	}
	return NULL;
}

/* The text of a file that is not too long, ended by a zero; false when it cannot be had whole. */
static bool read_hosts(int fd, char *hosts)
{
	ssize_t size = pread(fd, hosts, HOSTS_MAX, 0);

	if (size < 0 || size == HOSTS_MAX)
		return false;
	hosts[size] = 0;
	return strlen(hosts) == (size_t)size;
}

/* The name that the files have: a machine that boots again is called as before. At most NAME_MAX_LENGTH characters. */
static void read_name(char *name)
{
	int fd = open_file("/etc/hostname");
	ssize_t size = fd < 0 ? 0 : pread(fd, name, NAME_MAX_LENGTH, 0);
	size_t length = 0;

	if (fd >= 0)
		close(fd);
	name[size > 0 ? size : 0] = 0;
	while (isgraph((unsigned char)name[length]))
		length++;
	name[length] = 0;
	if (!length)
		strcpy(name, first_name);
}

static void add_hosts_line(const char *name)
{
	static char hosts[HOSTS_MAX + 256];
	int fd = open_file("/etc/hosts");
	size_t length;

	if (fd < 0)
		return;
	if (read_hosts(fd, hosts) && !find_line(hosts)) {
		if (!*hosts)
			strcpy(hosts, usual_hosts);
		length = strlen(hosts);
		if (hosts[length - 1] != '\n')
			strcat(hosts, "\n");
		strcat(hosts, address);
		strcat(hosts, " ");
		strcat(hosts, name);
		strcat(hosts, "\n");
		(void)!pwrite(fd, hosts, strlen(hosts), 0);
	}
	close(fd);
}

/* Replace `former` by `name` in our line. A line with another name is the user's. */
static void rename_hosts_line(const char *former, const char *name, size_t length)
{
	static char hosts[HOSTS_MAX + NAME_MAX_LENGTH];
	size_t before = strlen(former), rest;
	char *line = NULL;
	int fd;

	if (length == before && !memcmp(former, name, length))
		return; /* a guest that continues where it stopped */
	fd = open_file("/etc/hosts");
	if (fd < 0)
		return;
	if (read_hosts(fd, hosts))
		line = find_line(hosts);
	if (line) {
		line += sizeof address - 1;
		line += strspn(line, " \t");
		if (!strncmp(line, former, before) && (isspace((unsigned char)line[before]) || !line[before])) {
			rest = length == before ? 0 : strlen(line + before);
			memmove(line + length, line + before, rest + 1);
			memcpy(line, name, length);
			if (pwrite(fd, line, length + rest, line - hosts) == (ssize_t)(length + rest) && rest)
				(void)!ftruncate(fd, (off_t)(line - hosts) + (off_t)(length + rest));
		}
	}
	close(fd);
}

void names_prepare(void)
{
	char name[NAME_MAX_LENGTH + 1];

	read_name(name);
	sethostname(name, strlen(name));
	add_hosts_line(name);
}

int set_hostname(const char *name, size_t length)
{
	char former[NAME_MAX_LENGTH + 1] = "";

	if (!length || length > NAME_MAX_LENGTH)
		return EINVAL;
	gethostname(former, sizeof former);
	if (sethostname(name, length))
		return errno;
	write_line("/etc/hostname", name, length);
	rename_hosts_line(former, name, length);
	return 0;
}

void set_machine_id(const char *id, size_t length)
{
	write_line("/etc/machine-id", id, length);
}
