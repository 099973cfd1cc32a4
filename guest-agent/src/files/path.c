#include "files/path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REGULAR_FLAGS = O_CLOEXEC | O_NONBLOCK | O_NOCTTY };

static int not_regular(mode_t mode)
{
	return S_ISREG(mode) ? 0 : S_ISDIR(mode) ? EISDIR : EINVAL;
}

/* Looked at before the open too: opening a device can already do something. */
int open_regular(const char *path, int flags, mode_t mode, int *fd)
{
	struct stat st;
	int error = 0;

	if (!stat(path, &st))
		error = not_regular(st.st_mode);
	else if (!(flags & O_CREAT) || errno != ENOENT)
		error = errno;
	if (error)
		return error;
	*fd = open(path, flags | REGULAR_FLAGS, mode);
	if (*fd < 0)
		return errno;
	return fstat(*fd, &st) ? errno : not_regular(st.st_mode);
}

int make_parents(const char *path)
{
	char part[4096];
	size_t length = strlen(path);

	if (length >= sizeof part)
		return ENAMETOOLONG;
	memcpy(part, path, length + 1);
	for (size_t i = 1; i < length; i++) {
		if (part[i] != '/')
			continue;
		part[i] = 0;
		if (mkdir(part, 0755) && errno != EEXIST && errno != EROFS && errno != EACCES)
			return errno;
		part[i] = '/';
	}
	return 0;
}
