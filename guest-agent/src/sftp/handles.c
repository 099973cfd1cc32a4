#include "sftp/handles.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static struct sftp_handle handles[SFTP_HANDLES];
static uint32_t last;

uint32_t sftp_handle_new(int fd, DIR *directory, bool appends)
{
	for (size_t i = 0; i < SFTP_HANDLES; i++) {
		if (handles[i].number)
			continue;
		if (!++last)
			last = 1;
		handles[i] = (struct sftp_handle){ last, fd, directory, appends };
		return last;
	}
	if (directory)
		closedir(directory);
	else
		close(fd);
	return 0;
}

struct sftp_handle *sftp_handle_find(struct sftp_reader *r)
{
	uint32_t length, number;
	const uint8_t *p = sftp_bytes(r, &length);
	struct sftp_reader name = { p, p ? p + length : p, false };

	if (length != 4)
		return NULL;
	number = sftp_u32(&name);
	for (size_t i = 0; number && i < SFTP_HANDLES; i++)
		if (handles[i].number == number)
			return &handles[i];
	return NULL;
}

int sftp_handle_close(struct sftp_handle *h)
{
	int failed = h->directory ? closedir(h->directory) : close(h->fd);

	memset(h, 0, sizeof *h);
	return failed ? errno : 0;
}
