#include "processes/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "system/freeze.h"

static _Noreturn void fail(struct spawn *s, const char *what)
{
	s->error = errno;
	s->what = what;
	_exit(127);
}

static void move(struct spawn *s, int from, int to)
{
	if (from == to ? fcntl(from, F_SETFD, 0) : dup2(from, to) < 0)
		fail(s, "descriptor");
}

/* By system call: the C library would tell other threads, of which there are none. */
static void become(struct spawn *s)
{
	if (s->group_count < 0)
		return;
	if (syscall(SYS_setgroups, s->group_count, s->groups) || syscall(SYS_setgid, s->gid) ||
	    syscall(SYS_setuid, s->uid))
		fail(s, "user");
}

static void search_and_exec(struct spawn *s)
{
	const char *name = s->argv[0], *at = s->search;
	size_t name_length = strlen(name);
	char path[PATH_MAX];
	int error = ENOENT;

	while (at && *at) {
		size_t length = strcspn(at, ":");

		if (length && length + name_length + 2 <= sizeof path) {
			memcpy(path, at, length);
			path[length] = '/';
			memcpy(path + length + 1, name, name_length + 1);
			execve(path, s->argv, s->env);
			if (errno != ENOENT && errno != ENOTDIR)
				error = errno;
		}
		at += length + (at[length] == ':');
	}
	errno = error;
}

static _Noreturn void child(struct spawn *s)
{
	sigset_t none;

	setsid();
	if (!s->beside)
		freeze_join();
	else if (!freeze_avoid())
		fail(s, "control group");
	if (s->terminal && (ioctl(s->in, TIOCSCTTY, 0) || (s->group_count >= 0 && fchown(s->in, s->uid, s->gid))))
		fail(s, "terminal");
	move(s, s->in, 0);
	move(s, s->out, 1);
	move(s, s->err, 2);
	if (s->script >= 0)
		move(s, s->script, 3);
	become(s);
	if (chdir(s->cwd))
		fail(s, "working directory");
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (strchr(s->argv[0], '/'))
		execve(s->argv[0], s->argv, s->env);
	else
		search_and_exec(s);
	fail(s, "command");
}

pid_t spawn(struct spawn *s)
{
	pid_t pid;

	s->error = 0;
	if (!s->beside)
		thaw(); /* in a frozen group the child would not reach its program, nor we return from the vfork */
	/* vfork: copying page tables and then faulting every page again is slow where memory is emulated. */
	pid = vfork();
	if (pid == 0)
		child(s);
	if (pid < 0) {
		s->error = errno;
		s->what = "fork";
	}
	return s->error ? -1 : pid;
}
