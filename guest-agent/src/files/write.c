/*
 * Writing files. New content goes to a file beside the old one and takes its place when it is whole, so that nobody sees
 * half of it and a transfer that is broken off changes nothing. Where that cannot be (a mount point such as /etc/hosts, a
 * file with several links, procfs), the file is written in place.
 */
#include "files/write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/path.h"
#include "proto.h"

struct writing {
	int file; /* -1 when closed */
	char *target, *temporary; /* what to replace, and with what; the latter goes with the stream */
};

static int write_in_place(struct writing *w, const struct request *r, mode_t mode)
{
	int error = open_regular(r->path, O_WRONLY | O_CREAT | O_TRUNC, mode, &w->file);

	if (!error && r->has_mode && fchmod(w->file, mode))
		error = errno;
	return error;
}

/* `.pandastack-ID-TIME.new` in the directory of `target`. */
static char *name_beside(const char *target, uint32_t id)
{
	static const char digits[] = "0123456789abcdef", prefix[] = ".pandastack-", suffix[] = ".new";
	size_t directory = (size_t)(strrchr(target, '/') + 1 - target);
	uint64_t unique = now_ns() ^ (uint64_t)id << 32;
	char *name = malloc(directory + sizeof prefix + 16 + sizeof suffix), *end;

	if (!name)
		return NULL;
	memcpy(name, target, directory);
	memcpy(name + directory, prefix, sizeof prefix - 1);
	end = name + directory + sizeof prefix - 1;
	for (int shift = 60; shift >= 0; shift -= 4)
		*end++ = digits[unique >> shift & 15];
	memcpy(end, suffix, sizeof suffix);
	return name;
}

/* Opens a file beside `target`; false when there can be none, and nothing has changed then. */
static bool write_beside(struct writing *w, uint32_t id, const char *target, mode_t mode, const struct stat *old)
{
	char *temporary = name_beside(target, id);

	if (temporary)
		w->file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (!temporary || w->file < 0) {
		free(temporary);
		return false;
	}
	w->temporary = temporary;
	w->target = strdup(target);
	if (w->target && (!old || !fchown(w->file, old->st_uid, old->st_gid)) && !fchmod(w->file, mode))
		return true;
	unlink(temporary);
	free(temporary);
	free(w->target);
	close(w->file);
	w->temporary = w->target = NULL;
	w->file = -1;
	return false;
}

static void write_open(struct stream *s, const struct request *r)
{
	struct writing *w = s->state;
	int error = r->path ? make_parents(r->path) : EINVAL;
	mode_t mode = r->has_mode ? (mode_t)r->mode & 07777 : 0644;
	char real[PATH_MAX];
	const char *target = r->path;
	struct stat st, link;
	bool exists, beside;

	w->file = -1;
	if (error)
		return stream_finish(s, error, "write");
	exists = !stat(r->path, &st);
	if (exists && !S_ISREG(st.st_mode))
		return stream_finish(s, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, "write");
	if (exists) {
		target = realpath(r->path, real);
		beside = target && st.st_nlink == 1;
		if (!r->has_mode)
			mode = st.st_mode & 07777;
	} else {
		beside = target[0] == '/' && lstat(r->path, &link) && errno == ENOENT; /* else a link to nowhere */
	}
	if (!beside || !write_beside(w, s->id, target, mode, exists ? &st : NULL))
		error = write_in_place(w, r, mode);
	if (error)
		stream_finish(s, error, "write");
}

static void write_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	struct writing *w = s->state;

	for (uint32_t done = 0; done < length;) {
		ssize_t n = write(w->file, data + done, length - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return stream_finish(s, n < 0 ? errno : ENOSPC, "write");
		done += (uint32_t)n;
		s->bytes += (uint64_t)n;
	}
	stream_consumed(s, length);
}

static int copy_over(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_TRUNC | O_CLOEXEC), error = 0;
	ssize_t n = 1;

	if (in < 0 || out < 0)
		error = errno;
	while (!error && n > 0) {
		n = sendfile(out, in, NULL, 1 << 20);
		if (n < 0)
			error = errno;
	}
	close(in);
	close(out);
	return error;
}

static void write_end(struct stream *s)
{
	struct writing *w = s->state;
	int error = close(w->file) ? errno : 0;

	w->file = -1;
	if (!error && w->temporary) {
		if (!rename(w->temporary, w->target)) {
			free(w->temporary);
			w->temporary = NULL;
		} else {
			error = errno == EBUSY ? copy_over(w->temporary, w->target) : errno;
		}
	}
	stream_finish(s, error, "write");
}

static void write_close(struct stream *s)
{
	struct writing *w = s->state;

	if (w->file >= 0)
		close(w->file);
	if (w->temporary)
		unlink(w->temporary);
	free(w->temporary);
	free(w->target);
}

const struct stream_ops write_ops = {
	.name = OP_WRITE,
	.state_size = sizeof(struct writing),
	.open = write_open,
	.data = write_data,
	.end = write_end,
	.close = write_close,
};
