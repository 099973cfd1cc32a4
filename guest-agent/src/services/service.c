#include "services/service.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "processes/account.h"
#include "services/session.h"
#include "sftp/server.h"
#include "system/freeze.h"

static const struct service {
	const char *name;
	void (*run)(int fd, const struct account *account);
} services[] = { { "session", session_run }, { "sftp", sftp_run } };

/* By system call: the C library would tell other threads, of which there are none. */
static bool become(const struct account *account)
{
	if (geteuid())
		return true; /* a test, without privileges to give up */
	return !syscall(SYS_setgroups, account->group_count, account->groups) && !syscall(SYS_setgid, account->gid) &&
	       !syscall(SYS_setuid, account->uid);
}

/* A copy of the agent that keeps nothing of it but its memory, and of its descriptors only the standard ones and 3. */
static _Noreturn void child(const struct service *service, const struct account *account, int fd)
{
	sigset_t none;

	setsid();
	freeze_join();
	prctl(PR_SET_NAME, service->name);
	if (dup2(fd, 3) < 0 || syscall(SYS_close_range, 4u, ~0u, 0u) || !become(account))
		_exit(1);
	umask(022);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir(account->home) && chdir("/"))
		_exit(1);
	service->run(3, account);
	_exit(0);
}

static const struct service *find(const char *name)
{
	for (size_t i = 0; i < sizeof services / sizeof *services; i++)
		if (!strcmp(services[i].name, name))
			return &services[i];
	return NULL;
}

int service_start(const char *name, const char *user, int *fd)
{
	static struct account account;
	const struct service *service = find(name);
	int pair[2];
	pid_t pid;

	if (!service)
		return EOPNOTSUPP;
	if (!account_find(user ? user : "root", &account))
		return EINVAL;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return errno;
	thaw(); /* in a frozen group it would not begin */
	pid = fork();
	if (!pid)
		child(service, &account, pair[1]);
	close(pair[1]);
	if (pid < 0 || fcntl(pair[0], F_SETFL, O_RDWR | O_NONBLOCK)) {
		close(pair[0]);
		return EAGAIN;
	}
	*fd = pair[0];
	return 0;
}
