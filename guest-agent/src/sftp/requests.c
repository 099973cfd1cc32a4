#include "sftp/requests.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sftp/attributes.h"
#include "sftp/extensions.h"
#include "sftp/handles.h"
#include "sftp/status.h"

enum {
	INIT = 1, VERSION = 2, OPEN = 3, CLOSE = 4, READ = 5, WRITE = 6, LSTAT = 7, FSTAT = 8, SETSTAT = 9, FSETSTAT = 10,
	OPENDIR = 11, READDIR = 12, REMOVE = 13, MKDIR = 14, RMDIR = 15, REALPATH = 16, STAT = 17, RENAME = 18, READLINK = 19,
	SYMLINK = 20, EXTENDED = 200, HANDLE = 102, DATA = 103, ATTRS = 105,
};
enum { FOR_READ = 1, FOR_WRITE = 2, FOR_APPEND = 4, CREATE = 8, TRUNCATE = 16, EXCLUSIVE = 32 };
enum { NAMES_AT_ONCE = 128 };

static char path[PATH_MAX], other[PATH_MAX];

static void put_handle(struct sftp_writer *w, uint32_t id, uint32_t number)
{
	if (!number)
		return sftp_put_error(w, id, EMFILE);
	sftp_put_u8(w, HANDLE);
	sftp_put_u32(w, id);
	sftp_put_u32(w, 4);
	sftp_put_u32(w, number);
}

static void put_stat(struct sftp_writer *w, uint32_t id, int failed, const struct stat *st)
{
	if (failed)
		return sftp_put_error(w, id, errno);
	sftp_put_u8(w, ATTRS);
	sftp_put_u32(w, id);
	sftp_put_attributes(w, st);
}

static int open_flags(uint32_t wanted)
{
	int flags = O_CLOEXEC | O_NOCTTY;

	flags |= (wanted & (FOR_READ | FOR_WRITE)) == (FOR_READ | FOR_WRITE) ? O_RDWR : wanted & FOR_WRITE ? O_WRONLY : O_RDONLY;
	flags |= wanted & FOR_APPEND ? O_APPEND : 0;
	flags |= wanted & CREATE ? O_CREAT : 0;
	flags |= wanted & TRUNCATE ? O_TRUNC : 0;
	return flags | (wanted & EXCLUSIVE ? O_EXCL : 0);
}

static void open_file(struct sftp_reader *r, struct sftp_writer *w, uint32_t id)
{
	struct sftp_attributes attributes;
	uint32_t wanted;
	int fd;

	sftp_text(r, path, sizeof path);
	wanted = sftp_u32(r);
	sftp_read_attributes(r, &attributes);
	if (r->malformed)
		return sftp_put_error(w, id, EBADMSG);
	fd = open(path, open_flags(wanted), attributes.has_mode ? attributes.mode : 0666);
	if (fd < 0)
		return sftp_put_error(w, id, errno);
	put_handle(w, id, sftp_handle_new(fd, NULL, wanted & FOR_APPEND));
}

static void open_directory(struct sftp_reader *r, struct sftp_writer *w, uint32_t id)
{
	DIR *directory;

	sftp_text(r, path, sizeof path);
	directory = r->malformed ? NULL : opendir(path);
	if (!directory)
		return sftp_put_error(w, id, r->malformed ? EBADMSG : errno);
	put_handle(w, id, sftp_handle_new(-1, directory, false));
}

static void read_file(struct sftp_reader *r, struct sftp_writer *w, uint32_t id)
{
	struct sftp_handle *h = sftp_handle_find(r);
	uint64_t offset = sftp_u64(r);
	uint32_t length = sftp_u32(r);
	size_t at;
	ssize_t n;

	if (r->malformed || !h || h->directory || offset > INT64_MAX)
		return sftp_put_error(w, id, r->malformed ? EBADMSG : EBADF);
	if (length > SFTP_DATA_MAX)
		length = SFTP_DATA_MAX;
	at = w->length;
	sftp_put_u8(w, DATA);
	sftp_put_u32(w, id);
	sftp_put_u32(w, 0);
	n = pread(h->fd, w->bytes + w->length, length, (off_t)offset);
	if (n < 0 && errno == ESPIPE)
		n = read(h->fd, w->bytes + w->length, length);
	if (n > 0) {
		sftp_set_u32(w, w->length - 4, (uint32_t)n);
		w->length += (size_t)n;
		return;
	}
	w->length = at;
	if (n)
		sftp_put_error(w, id, errno);
	else
		sftp_put_status(w, id, SFTP_EOF, "End of file");
}

static int write_at(const struct sftp_handle *h, const uint8_t *data, uint32_t length, uint64_t offset)
{
	while (length) {
		ssize_t n = h->appends ? write(h->fd, data, length) : pwrite(h->fd, data, length, (off_t)offset);

		if (n < 0 && errno == ESPIPE)
			n = write(h->fd, data, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		data += n;
		offset += (uint64_t)n;
		length -= (uint32_t)n;
	}
	return 0;
}

static void write_file(struct sftp_reader *r, struct sftp_writer *w, uint32_t id)
{
	struct sftp_handle *h = sftp_handle_find(r);
	uint64_t offset = sftp_u64(r);
	uint32_t length;
	const uint8_t *data = sftp_bytes(r, &length);

	if (r->malformed || !h || h->directory || offset > (uint64_t)INT64_MAX - length)
		return sftp_put_error(w, id, r->malformed ? EBADMSG : EBADF);
	sftp_put_error(w, id, write_at(h, data, length, offset));
}

static void put_entry(struct sftp_writer *w, const char *name, int directory)
{
	struct stat st;

	if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW))
		memset(&st, 0, sizeof st); /* it has gone meanwhile */
	sftp_put_text(w, name);
	sftp_put_long_name(w, name, &st);
	sftp_put_attributes(w, &st);
}

static void read_directory(struct sftp_reader *r, struct sftp_writer *w, uint32_t id)
{
	struct sftp_handle *h = sftp_handle_find(r);
	struct dirent *entry;
	uint32_t count = 0;
	size_t at;

	if (!h || !h->directory)
		return sftp_put_error(w, id, EBADF);
	sftp_put_u8(w, SFTP_NAME);
	sftp_put_u32(w, id);
	at = w->length;
	sftp_put_u32(w, 0);
	errno = 0;
	while (count < NAMES_AT_ONCE && (entry = readdir(h->directory))) {
		put_entry(w, entry->d_name, dirfd(h->directory));
		count++;
	}
	sftp_set_u32(w, at, count);
	if (count)
		return;
	w->length = at - 5;
	if (errno)
		sftp_put_error(w, id, errno);
	else
		sftp_put_status(w, id, SFTP_EOF, "End of file");
}

/* The path of something that may not exist (yet): its directory's, and its name. */
static const char *resolve(const char *name, char *to)
{
	char *slash, *last;
	size_t length;

	if (realpath(*name ? name : ".", to))
		return to;
	if (errno != ENOENT || snprintf(other, sizeof other, "%s", name) >= (int)sizeof other)
		return NULL;
	for (length = strlen(other); length > 1 && other[length - 1] == '/'; length--)
		other[length - 1] = 0;
	slash = strrchr(other, '/');
	last = slash ? slash + 1 : other;
	if (slash)
		*slash = 0;
	if (!strcmp(last, "..") || !realpath(!slash ? "." : *other ? other : "/", to))
		return NULL;
	length = strlen(to);
	if (length + strlen(last) + 2 > PATH_MAX) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	if (length > 1)
		to[length++] = '/';
	strcpy(to + length, last);
	return to;
}

static void put_real_path(struct sftp_writer *w, uint32_t id, const char *name)
{
	static char found[PATH_MAX];

	if (resolve(name, found))
		sftp_put_name(w, id, found);
	else
		sftp_put_error(w, id, errno);
}

/* Version 3 never replaces; the rename of POSIX is an extension. */
static int rename_new(const char *from, const char *to)
{
	struct stat st;

	if (lstat(from, &st))
		return errno;
	if (S_ISREG(st.st_mode) && !link(from, to))
		return unlink(from) ? errno : 0;
	if (S_ISREG(st.st_mode) && errno == EEXIST)
		return errno;
	if (!lstat(to, &st))
		return EEXIST;
	return rename(from, to) ? errno : 0;
}

static void link_path(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, uint8_t type)
{
	int error;

	sftp_text(r, path, sizeof path);
	sftp_text(r, other, sizeof other);
	if (r->malformed)
		return sftp_put_error(w, id, EBADMSG);
	if (type == RENAME)
		error = rename_new(path, other);
	else /* OpenSSH has the target first, and all clients do as it does */
		error = symlink(path, other) ? errno : 0;
	sftp_put_error(w, id, error);
}

static void read_link(struct sftp_writer *w, uint32_t id)
{
	ssize_t n = readlink(path, other, sizeof other - 1);

	if (n < 0)
		return sftp_put_error(w, id, errno);
	other[n] = 0;
	sftp_put_name(w, id, other);
}

static void set_attributes(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, bool open)
{
	struct sftp_attributes attributes;
	struct sftp_handle *h = open ? sftp_handle_find(r) : NULL;

	if (!open)
		sftp_text(r, path, sizeof path);
	sftp_read_attributes(r, &attributes);
	if (r->malformed || (open && !h))
		return sftp_put_error(w, id, r->malformed ? EBADMSG : EBADF);
	sftp_put_error(w, id, sftp_apply(&attributes, !h ? -1 : h->directory ? dirfd(h->directory) : h->fd, path, true));
}

static void make_directory(struct sftp_reader *r, struct sftp_writer *w, uint32_t id)
{
	struct sftp_attributes attributes;

	sftp_text(r, path, sizeof path);
	sftp_read_attributes(r, &attributes);
	if (r->malformed)
		return sftp_put_error(w, id, EBADMSG);
	sftp_put_error(w, id, mkdir(path, attributes.has_mode ? attributes.mode & 0777 : 0777) ? errno : 0);
}

static void at_path(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, uint8_t type)
{
	struct stat st;

	sftp_text(r, path, sizeof path);
	if (r->malformed)
		return sftp_put_error(w, id, EBADMSG);
	switch (type) {
	case LSTAT: put_stat(w, id, lstat(path, &st), &st); break;
	case STAT: put_stat(w, id, stat(path, &st), &st); break;
	case REMOVE: sftp_put_error(w, id, unlink(path) ? errno : 0); break;
	case RMDIR: sftp_put_error(w, id, rmdir(path) ? errno : 0); break;
	case REALPATH: put_real_path(w, id, path); break;
	case READLINK: read_link(w, id); break;
	}
}

static void at_handle(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, uint8_t type)
{
	struct sftp_handle *h = sftp_handle_find(r);
	struct stat st;

	if (!h)
		return sftp_put_error(w, id, EBADF);
	if (type == CLOSE)
		sftp_put_error(w, id, sftp_handle_close(h));
	else
		put_stat(w, id, fstat(h->directory ? dirfd(h->directory) : h->fd, &st), &st);
}

bool sftp_request(struct sftp_reader *r, struct sftp_writer *w, const char *home)
{
	uint8_t type = r->at < r->end ? *r->at++ : 0;
	uint32_t id = sftp_u32(r); /* of INIT, the client's version */

	if (r->malformed)
		return false;
	switch (type) {
	case INIT: sftp_put_u8(w, VERSION); sftp_put_extensions(w); break;
	case OPEN: open_file(r, w, id); break;
	case OPENDIR: open_directory(r, w, id); break;
	case READ: read_file(r, w, id); break;
	case WRITE: write_file(r, w, id); break;
	case READDIR: read_directory(r, w, id); break;
	case SETSTAT: set_attributes(r, w, id, false); break;
	case FSETSTAT: set_attributes(r, w, id, true); break;
	case MKDIR: make_directory(r, w, id); break;
	case RENAME: case SYMLINK: link_path(r, w, id, type); break;
	case CLOSE: case FSTAT: at_handle(r, w, id, type); break;
	case LSTAT: case STAT: case REMOVE: case RMDIR: case REALPATH: case READLINK: at_path(r, w, id, type); break;
	case EXTENDED: sftp_extended(r, w, id, home); break;
	default: sftp_put_status(w, id, SFTP_UNSUPPORTED, "Operation unsupported"); break;
	}
	return true;
}
