#include "streams/job.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto.h"

/* fork, not vfork: the child works with our code. */
void job_start(struct stream *s, int (*work)(const char *), const char *path, const char *what)
{
	pid_t pid = fork();

	s->what = what;
	if (pid == 0) {
		syscall(SYS_close_range, 3, ~0u, 0); /* or a pipe would seem open for as long as we work */
		_exit(work(path));
	}
	if (pid < 0)
		stream_finish(s, errno, what);
	else
		s->child = pid;
}

void job_signal(struct stream *s, int signal)
{
	if (signal == SIGNAL_CANCEL && s->child)
		kill(s->child, SIGKILL);
}

void job_reaped(struct stream *s, int status)
{
	/* Only we kill it. */
	stream_finish(s, WIFEXITED(status) ? WEXITSTATUS(status) : ECANCELED, s->what);
}
