#include "processes/session.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "processes/process_table.h"

/* The session of a process, by the fourth field behind its name in /proc/PID/stat; 0 when it is gone. */
static pid_t session_of(const char *pid)
{
	char path[64] = "/proc/", text[512], *field;
	ssize_t size;
	int fd;

	if (strlen(pid) > 12)
		return 0;
	strcat(strcat(path, pid), "/stat");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	size = read(fd, text, sizeof text - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	field = strrchr(text, ')'); /* a name may have anything in it */
	for (int i = 0; field && i < 4; i++)
		field = strchr(field + 1, ' ');
	return field ? (pid_t)atoi(field + 1) : 0;
}

static bool is_marked(pid_t session)
{
	for (size_t i = 0; i < processes_used; i++)
		if (processes[i].sweep && processes[i].pid == session)
			return true;
	return false;
}

static bool marked;

void session_kill(struct process *leader)
{
	kill(-leader->pid, SIGKILL);
	leader->sweep = marked = true;
}

void sessions_sweep(void)
{
	DIR *directory = marked ? opendir("/proc") : NULL;
	struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		pid_t pid = (pid_t)atoi(entry->d_name), session = pid > 1 ? session_of(entry->d_name) : 0;

		if (session > 1 && is_marked(session))
			kill(pid, SIGKILL);
	}
	if (directory)
		closedir(directory);
	for (size_t i = 0; marked && i < processes_used; i++)
		processes[i].sweep = false;
	marked = false;
}
