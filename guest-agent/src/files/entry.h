/* Files as the host gets them: in lists, and in the answer to a stat. */
#ifndef ENTRY_H
#define ENTRY_H

#include <sys/stat.h>

#include "streams/stream.h"

enum { ENTRY_MAX = 512 }; /* bytes of what put_entry writes */

struct raw_dirent { /* of getdents64 */
	uint64_t ino;
	int64_t next;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* Whether the name is "." or "..". */
bool dots(const char *name);
char type_of(mode_t mode);
void put_entry(struct tlv_writer *writer, const char *name, const struct stat *st);

extern const struct stream_ops stat_ops;

#endif
