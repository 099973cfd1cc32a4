/* Who a command runs as: /etc/passwd and /etc/group, read without the C library's stdio and name services. */
#ifndef ACCOUNT_H
#define ACCOUNT_H

#include <stdbool.h>
#include <sys/types.h>

enum { ACCOUNT_GROUPS = 64 };

struct account {
	uid_t uid;
	gid_t gid;
	gid_t groups[ACCOUNT_GROUPS];
	int group_count;
	char name[64], home[256], shell[256];
};

/* `user` is a name or uid[:gid]. False when there is no such name. */
bool account_find(const char *user, struct account *account);

#endif
