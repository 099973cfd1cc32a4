/* The attributes of files in SFTP: what a client wants them to be, and what they are. */
#ifndef SFTP_ATTRIBUTES_H
#define SFTP_ATTRIBUTES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "sftp/packet.h"

struct sftp_attributes {
	bool has_size, has_owner, has_mode, has_times;
	uint64_t size;
	uint32_t uid, gid, mode, atime, mtime;
};

void sftp_read_attributes(struct sftp_reader *reader, struct sftp_attributes *attributes);
void sftp_put_attributes(struct sftp_writer *writer, const struct stat *st);
/* As in the output of "ls -l". */
void sftp_put_long_name(struct sftp_writer *writer, const char *name, const struct stat *st);

/* Gives them to an open file (fd >= 0), or to a path; a link itself without `follow`. 0 or an errno. */
int sftp_apply(const struct sftp_attributes *attributes, int fd, const char *path, bool follow);

#endif
