#include "files/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "channel/out.h"
#include "files/entry.h"
#include "files/path.h"
#include "proto.h"

enum { LIST_CHUNK = 16 * 1024, DIRENTS = 8 * 1024 };

struct listing {
	int file;
};

static void list_open(struct stream *s, const struct request *r)
{
	struct listing *listing = s->state;

	listing->file = r->path ? open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK) : -1;
	if (listing->file < 0)
		stream_finish(s, r->path ? errno : EINVAL, "list");
}

static void list_close(struct stream *s)
{
	struct listing *listing = s->state;

	if (listing->file >= 0)
		close(listing->file);
}

/* Entries of one read of the directory, as far as there is room: the position is set behind the last one taken. */
static void take_entries(int dir, const char *buffer, long size, struct tlv_writer *w)
{
	int64_t taken = -1;
	struct stat st;

	for (long at = 0; at < size;) {
		const struct raw_dirent *entry = (const void *)(buffer + at);

		if (w->end - w->at < ENTRY_MAX + 5) {
			if (taken >= 0)
				lseek(dir, taken, SEEK_SET);
			return;
		}
		if (!dots(entry->name) && !fstatat(dir, entry->name, &st, AT_SYMLINK_NOFOLLOW))
			put_entry(w, entry->name, &st);
		taken = entry->next;
		at += entry->length;
	}
}

/* One frame of entries. */
static bool list_pump(struct stream *s)
{
	struct listing *listing = s->state;
	static _Alignas(8) char buffer[DIRENTS];
	size_t room = s->credit < LIST_CHUNK ? s->credit : LIST_CHUNK;
	struct tlv_writer w;
	const uint8_t *begin;
	long size;

	if (room < 2 * ENTRY_MAX || !out_open_for_data())
		return false;
	w = out_tlv(room);
	if (w.overflow)
		return false;
	begin = w.at;
	size = syscall(SYS_getdents64, listing->file, buffer, sizeof buffer);
	if (size <= 0) {
		stream_finish(s, size < 0 ? errno : 0, "list");
		return true;
	}
	take_entries(listing->file, buffer, size, &w);
	s->credit -= (uint32_t)(w.at - begin);
	if (w.at > begin)
		out_commit_tlv(F_DATA, s->id, &w);
	return true;
}

static void mkdir_open(struct stream *s, const struct request *r)
{
	struct stat st;
	int error = r->path ? make_parents(r->path) : EINVAL;

	if (!error && mkdir(r->path, r->has_mode ? (mode_t)r->mode & 07777 : 0755)) {
		error = errno;
		if (error == EEXIST && !stat(r->path, &st) && S_ISDIR(st.st_mode))
			error = 0;
	}
	stream_finish(s, error, "mkdir");
}

const struct stream_ops list_ops = {
	.name = OP_LIST,
	.state_size = sizeof(struct listing),
	.open = list_open,
	.pump = list_pump,
	.close = list_close,
};

const struct stream_ops mkdir_ops = { .name = OP_MKDIR, .open = mkdir_open };
