#include "processes/account.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DATABASE_SIZE = 256 * 1024, FIELDS = 7 };

static char database[DATABASE_SIZE + 1];

static bool load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t size = 0;
	ssize_t n;

	if (fd < 0)
		return false;
	while (size < DATABASE_SIZE && (n = read(fd, database + size, DATABASE_SIZE - size)) > 0)
		size += (size_t)n;
	close(fd);
	database[size] = 0;
	return true;
}

/* Cuts the line at *at into fields; returns their number and moves on to the next line. */
static int cut(char **at, char *fields[FIELDS])
{
	char *line = *at;
	int count = 0;

	*at = line + strcspn(line, "\n");
	if (**at)
		*(*at)++ = 0;
	while (count < FIELDS) {
		fields[count++] = line;
		line = strchr(line, ':');
		if (!line)
			break;
		*line++ = 0;
	}
	return count;
}

static bool number(const char *text, char stop, uint32_t *value, const char **rest)
{
	char *end;
	unsigned long parsed;

	if (*text < '0' || *text > '9')
		return false;
	parsed = strtoul(text, &end, 10);
	if (parsed >= UINT32_MAX || (*end && *end != stop))
		return false;
	*value = (uint32_t)parsed;
	*rest = end;
	return true;
}

static void copy(char *to, const char *from, size_t size)
{
	size_t length = strnlen(from, size - 1);

	memcpy(to, from, length);
	to[length] = 0;
}

static bool in_list(const char *list, const char *name)
{
	size_t length = strlen(name);

	while (*list) {
		size_t part = strcspn(list, ",");

		if (part == length && !memcmp(list, name, part))
			return true;
		list += part + (list[part] == ',');
	}
	return false;
}

static void find_groups(struct account *account)
{
	char *at = database, *fields[FIELDS];
	const char *rest;
	uint32_t gid;

	account->groups[account->group_count++] = account->gid;
	if (!load("/etc/group"))
		return;
	while (*at && account->group_count < ACCOUNT_GROUPS)
		if (cut(&at, fields) >= 4 && in_list(fields[3], account->name) && number(fields[2], 0, &gid, &rest) &&
		    gid != account->gid)
			account->groups[account->group_count++] = gid;
}

/* The line of /etc/passwd with this name, or with this uid when `name` is NULL. */
static bool find_line(const char *name, uint32_t wanted, struct account *account)
{
	char *at = database, *fields[FIELDS];
	const char *rest;
	uint32_t uid, gid;

	if (!load("/etc/passwd"))
		return false;
	while (*at) {
		if (cut(&at, fields) < FIELDS || !number(fields[2], 0, &uid, &rest) || !number(fields[3], 0, &gid, &rest))
			continue;
		if (name ? strcmp(fields[0], name) != 0 : uid != wanted)
			continue;
		account->uid = uid;
		account->gid = gid;
		copy(account->name, fields[0], sizeof account->name);
		copy(account->home, fields[5], sizeof account->home);
		copy(account->shell, *fields[6] ? fields[6] : "/bin/sh", sizeof account->shell);
		return true;
	}
	return false;
}

bool account_find(const char *user, struct account *account)
{
	const char *rest = "";
	uint32_t uid, gid;
	bool numeric = number(user, ':', &uid, &rest);

	memset(account, 0, sizeof *account);
	if (!find_line(numeric ? NULL : user, uid, account)) {
		if (!numeric)
			return false;
		account->uid = account->gid = uid;
		copy(account->name, user, strcspn(user, ":") + 1 < sizeof account->name ? strcspn(user, ":") + 1
		                                                                        : sizeof account->name);
		copy(account->home, "/", sizeof account->home);
		copy(account->shell, "/bin/sh", sizeof account->shell);
	}
	if (*rest == ':') {
		if (!number(rest + 1, 0, &gid, &rest))
			return false;
		account->gid = gid;
	}
	find_groups(account);
	return true;
}
