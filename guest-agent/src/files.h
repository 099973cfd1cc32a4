/* Work on files. Each begins at an OPEN; what moves data goes on in files_pump. */
#ifndef FILES_H
#define FILES_H

#include <sys/types.h>

#include "request.h"
#include "stream.h"

void read_open(struct stream *stream, const struct request *request);
void write_open(struct stream *stream, const struct request *request);
void write_data(struct stream *stream, const uint8_t *data, uint32_t length);
void write_end(struct stream *stream);
void list_open(struct stream *stream, const struct request *request);
/* Answers at once; the stream is freed. */
void stat_open(struct stream *stream, const struct request *request);
void mkdir_open(struct stream *stream, const struct request *request);
/* These run in a child of ours: they may take long. */
void delete_open(struct stream *stream, const struct request *request);
void sync_open(struct stream *stream);
void job_exited(struct stream *stream, int status);

/* What differs from the template: see changes.c. The two directories that the root's overlay is made of. */
bool changes_between(const char *upper, const char *lower);
void changes_open(struct stream *stream);
bool changes_pump(struct stream *stream);
void changes_end(struct walk *walk);

bool files_pump(struct stream *stream);

/* 0 or an errno. */
int delete_tree(const char *path);
int make_parents(const char *path);
int open_regular(const char *path, int flags, mode_t mode, int *fd);

struct raw_dirent { /* of getdents64 */
	uint64_t ino;
	int64_t next;
	uint16_t length;
	uint8_t type;
	char name[];
};

bool dots(const char *name);
char type_of(mode_t mode);

struct stat;
void put_entry(struct tlv_writer *writer, const char *name, const struct stat *st);

#endif
