#include "processes/env.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { ENV_MAX = 2048, SANDBOX_ENV_SIZE = 64 * 1024, FILE_ENV_SIZE = 16 * 1024 };

/* Two copies: the one in use stays whole until the next is complete. */
static char sandbox_env[2][SANDBOX_ENV_SIZE];
static size_t sandbox_length[2];
static int current;

static char *vector[ENV_MAX + 1];
static size_t count;

int sandbox_env_begin(void)
{
	sandbox_length[!current] = 0;
	return 0;
}

int sandbox_env_add(const uint8_t *text, size_t length)
{
	size_t *used = &sandbox_length[!current];

	if (memchr(text, 0, length) || !memchr(text, '=', length))
		return EINVAL;
	if (length + 1 > SANDBOX_ENV_SIZE - *used)
		return E2BIG;
	memcpy(sandbox_env[!current] + *used, text, length);
	*used += length;
	sandbox_env[!current][(*used)++] = 0;
	return 0;
}

void sandbox_env_commit(void)
{
	current = !current;
}

static bool same_name(const char *a, const char *b)
{
	size_t length = strcspn(a, "=");

	return !strncmp(a, b, length) && b[length] == '=';
}

static bool put(char *text)
{
	if (!strchr(text, '=') || *text == '=')
		return true;
	for (size_t i = 0; i < count; i++) {
		if (same_name(text, vector[i])) {
			vector[i] = text;
			return true;
		}
	}
	if (count == ENV_MAX)
		return false;
	vector[count++] = text;
	return true;
}

/* One line of /etc/environment as pam_env reads it: an optional "export", optional quotes. */
static char *clean(char *line)
{
	char *value, *last;

	line += strspn(line, " \t");
	if (!strncmp(line, "export ", 7))
		line += 7;
	value = strchr(line, '=');
	if (*line == '#' || !value)
		return NULL;
	last = value + strlen(value) - 1;
	while (last > value && (*last == ' ' || *last == '\r' || *last == '\t'))
		*last-- = 0;
	if (last > value + 1 && (value[1] == '"' || value[1] == '\'') && *last == value[1]) {
		*last = 0;
		memmove(value + 1, value + 2, strlen(value + 2) + 1);
	}
	return line;
}

static bool put_file(void)
{
	static char text[FILE_ENV_SIZE + 1];
	int fd = open("/etc/environment", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t size;

	if (fd < 0)
		return true;
	size = read(fd, text, FILE_ENV_SIZE);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	for (char *line = text; *line;) {
		size_t length = strcspn(line, "\n");
		char *next = line + length + (line[length] == '\n'), *cleaned;

		line[length] = 0;
		cleaned = clean(line);
		if (cleaned && !put(cleaned))
			return false;
		line = next;
	}
	return true;
}

static bool put_account(const struct account *account)
{
	static char home[300], user[80], logname[80], shell[300];

	if (!account)
		return put("HOME=/root") && put("USER=root") && put("LOGNAME=root") && put("SHELL=/bin/sh");
	strcat(strcpy(home, "HOME="), account->home);
	strcat(strcpy(user, "USER="), account->name);
	strcat(strcpy(logname, "LOGNAME="), account->name);
	strcat(strcpy(shell, "SHELL="), account->shell);
	return put(home) && put(user) && put(logname) && put(shell);
}

char **env_build(const struct request *request, const struct account *account)
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char lang[] = "LANG=C.UTF-8";
	char *text = sandbox_env[current], *end = text + sandbox_length[current];
	bool fits;

	count = 0;
	fits = put(path) && put(lang) && put_account(account) && put_file();
	for (; fits && text < end; text += strlen(text) + 1)
		fits = put(text);
	for (size_t i = 0; fits && i < request->envc; i++)
		fits = put(request->env[i]);
	vector[count] = NULL;
	return fits ? vector : NULL;
}

const char *env_get(char *const *env, const char *name)
{
	size_t length = strlen(name);

	for (; *env; env++)
		if (!strncmp(*env, name, length) && (*env)[length] == '=')
			return *env + length + 1;
	return NULL;
}
