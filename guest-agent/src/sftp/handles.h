/* The files and directories that an SFTP client has open. A handle is never used twice. */
#ifndef SFTP_HANDLES_H
#define SFTP_HANDLES_H

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>

#include "sftp/packet.h"

enum { SFTP_HANDLES = 256 };

struct sftp_handle {
	uint32_t number; /* 0: free */
	int fd;
	DIR *directory; /* NULL: a file */
	bool appends;
};

/* Takes what is open over; 0 when there are too many, and then it is closed. */
uint32_t sftp_handle_new(int fd, DIR *directory, bool appends);
/* Reads a handle; NULL when there is none like it. */
struct sftp_handle *sftp_handle_find(struct sftp_reader *reader);
/* 0 or an errno. */
int sftp_handle_close(struct sftp_handle *handle);

#endif
