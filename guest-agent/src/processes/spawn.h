/* Starting a process. */
#ifndef SPAWN_H
#define SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

struct spawn {
	char *const *argv;
	char *const *env;
	const char *search; /* PATH to look argv[0] up in, when it has no slash */
	const char *cwd;
	int in, out, err;
	bool beside; /* it runs while programs are frozen, and they stay so */
	bool terminal; /* they are one, which is to control the session */
	int script; /* becomes descriptor 3, or -1 */
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	int group_count; /* -1: stay who we are */
	volatile int error; /* filled in by the child, which shares our memory until it execs */
	const char *volatile what;
};

/* The pid, or -1 with error and what set: nothing of the command has run then. */
pid_t spawn(struct spawn *spawn);

#endif
