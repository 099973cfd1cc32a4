/*
 * What differs from the template: a walk over the upper directory of the root's overlay, which holds exactly that. The
 * format is the kernel's (Documentation/filesystems/overlayfs.rst): a character device 0:0 hides what the lower directory
 * has under its name, the attribute trusted.overlay.opaque hides everything that it has below a directory. What lies on
 * other file systems (/run, /dev, volumes) is not in it.
 *
 * Each entry says what it is, and what the lower directory has under the same path. What an opaque directory hides is
 * listed as deleted, one level deep: a reader of the list need not know the template.
 */
#include "files/changes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "channel/out.h"
#include "files/entry.h"
#include "proto.h"

enum {
	NODE_ROOM = PATH_MAX + 256, /* one side of an entry: its numbers, and a link's target */
	ENTRY_ROOM = PATH_MAX + 2 * NODE_ROOM + 64,
	CHUNK = 32 * 1024,
	STEPS = 64, /* directories in one turn of the loop */
	DEPTH = 128,
	DIRENTS = 2048,
	DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
};

struct level {
	int upper, lower; /* lower: -1 when there is no directory of this path */
	uint16_t length; /* of the path of this directory */
	bool opaque; /* it, or a directory that it is in */
	bool hidden_ones; /* the upper directory has been read, the lower is being read */
};

struct walk {
	char path[PATH_MAX];
	size_t depth;
	struct level levels[DEPTH];
};

static int upper_root = -1, lower_root = -1;

bool changes_between(const char *upper, const char *lower)
{
	upper_root = open(upper, O_PATH | O_DIRECTORY | O_CLOEXEC);
	lower_root = open(lower, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return upper_root >= 0 && lower_root >= 0;
}

static uint64_t nanoseconds(struct timespec time)
{
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void put_node(struct tlv_writer *w, int dir, const char *name, const struct stat *st)
{
	char target[PATH_MAX], type = type_of(st->st_mode);
	ssize_t length;

	tlv_put(w, ENTRY_TYPE, &type, 1);
	tlv_put_u64(w, ENTRY_SIZE, (uint64_t)st->st_size);
	tlv_put_u32(w, ENTRY_MODE, st->st_mode);
	tlv_put_u32(w, ENTRY_UID, st->st_uid);
	tlv_put_u32(w, ENTRY_GID, st->st_gid);
	tlv_put_u64(w, ENTRY_MTIME_NS, nanoseconds(st->st_mtim));
	tlv_put_u64(w, ENTRY_CTIME_NS, nanoseconds(st->st_ctim));
	tlv_put_u64(w, ENTRY_INODE, st->st_ino);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		tlv_put_u64(w, ENTRY_DEVICE, st->st_rdev);
	if (S_ISLNK(st->st_mode) && (length = readlinkat(dir, name, target, sizeof target)) > 0)
		tlv_put(w, ENTRY_TARGET, target, (size_t)length);
}

/* The entry of `name` in the directory on top, whose path has been completed; NULL: there is none on that side. */
static void put_change(struct tlv_writer *w, const struct walk *walk, const struct level *top, const char *name,
                       const struct stat *upper, const struct stat *lower, bool opaque)
{
	static uint8_t bytes[ENTRY_ROOM], below[NODE_ROOM];
	struct tlv_writer entry = { bytes, bytes + sizeof bytes, false };
	struct tlv_writer node = { below, below + sizeof below, false };

	tlv_put_text(&entry, ENTRY_NAME, walk->path);
	if (upper)
		put_node(&entry, top->upper, name, upper);
	else
		tlv_put(&entry, ENTRY_TYPE, "x", 1);
	if (opaque)
		tlv_put(&entry, ENTRY_OPAQUE, NULL, 0);
	if (lower) {
		put_node(&node, top->lower, name, lower);
		tlv_put(&entry, ENTRY_BELOW, below, (size_t)(node.at - below));
	}
	tlv_put(w, RESULT_ENTRY, bytes, (size_t)(entry.at - bytes));
}

static bool is_opaque(int dir)
{
	char value;

	return fgetxattr(dir, "trusted.overlay.opaque", &value, 1) == 1 && value == 'y';
}

/* Takes over both descriptors. */
static int descend(struct walk *walk, int upper, int lower, size_t length, bool opaque)
{
	if (walk->depth == DEPTH || upper < 0) {
		int error = upper < 0 ? errno : ELOOP;

		if (upper >= 0)
			close(upper);
		if (lower >= 0)
			close(lower);
		return error;
	}
	walk->levels[walk->depth++] = (struct level){ upper, lower, (uint16_t)length, opaque, false };
	return 0;
}

static void ascend(struct walk *walk)
{
	struct level *top = &walk->levels[--walk->depth];

	close(top->upper);
	if (top->lower >= 0)
		close(top->lower);
}

/* The path of `name` in the directory on top; 0 when it is too long. */
static size_t complete_path(struct walk *walk, const struct level *top, const char *name)
{
	size_t length = top->length, size = strlen(name);

	if (length + 1 + size >= sizeof walk->path)
		return 0;
	if (length)
		walk->path[length++] = '/';
	memcpy(walk->path + length, name, size + 1);
	return length + size;
}

static int visit_upper(struct walk *walk, const char *name, size_t length, struct tlv_writer *w)
{
	const struct level *top = &walk->levels[walk->depth - 1];
	struct stat upper, lower;
	bool below = top->lower >= 0 && !fstatat(top->lower, name, &lower, AT_SYMLINK_NOFOLLOW);
	bool opaque = false;
	int dir = -1;

	if (fstatat(top->upper, name, &upper, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : errno; /* deleted just now */
	if (S_ISCHR(upper.st_mode) && upper.st_rdev == 0) {
		if (below)
			put_change(w, walk, top, name, NULL, &lower, false);
		return 0;
	}
	if (S_ISDIR(upper.st_mode)) {
		dir = openat(top->upper, name, DIRECTORY);
		if (dir < 0)
			return errno == ENOENT || errno == ENOTDIR ? 0 : errno;
		opaque = is_opaque(dir);
	}
	put_change(w, walk, top, name, &upper, below ? &lower : NULL, opaque);
	if (dir < 0)
		return 0;
	return descend(walk, dir, below ? openat(top->lower, name, DIRECTORY) : -1, length, top->opaque || opaque);
}

static void visit_lower(struct walk *walk, const char *name, struct tlv_writer *w)
{
	const struct level *top = &walk->levels[walk->depth - 1];
	struct stat st;

	if (fstatat(top->upper, name, &st, AT_SYMLINK_NOFOLLOW) && errno == ENOENT &&
	    !fstatat(top->lower, name, &st, AT_SYMLINK_NOFOLLOW))
		put_change(w, walk, top, name, NULL, &st, false);
}

/* Nothing more in the directory on top: on to what it hides, or back. */
static void leave(struct walk *walk)
{
	struct level *top = &walk->levels[walk->depth - 1];

	if (top->opaque && top->lower >= 0 && !top->hidden_ones)
		top->hidden_ones = true;
	else
		ascend(walk);
}

/* Entries of the directory on top, until it is left, another is entered or there is no room. 0 or an errno. */
static int step(struct walk *walk, struct tlv_writer *w)
{
	static _Alignas(8) char buffer[DIRENTS];
	size_t depth = walk->depth;
	struct level *top = &walk->levels[depth - 1];
	int dir = top->hidden_ones ? top->lower : top->upper, error = 0;
	off_t here = lseek(dir, 0, SEEK_CUR);
	long size = syscall(SYS_getdents64, dir, buffer, sizeof buffer);

	if (size < 0 && errno != ENOENT)
		return errno;
	if (size < 0)
		ascend(walk); /* the directory was deleted just now */
	else if (size == 0)
		leave(walk);
	for (long at = 0; at < size && !error && walk->depth == depth;) {
		const struct raw_dirent *entry = (const void *)(buffer + at);
		size_t length;

		if (w->end - w->at < ENTRY_ROOM + 5)
			break;
		if (!dots(entry->name)) {
			length = complete_path(walk, top, entry->name);
			if (!length)
				error = ENAMETOOLONG;
			else if (top->hidden_ones)
				visit_lower(walk, entry->name, w);
			else
				error = visit_upper(walk, entry->name, length, w);
		}
		here = entry->next;
		at += entry->length;
	}
	if (size > 0 && lseek(dir, here, SEEK_SET) < 0)
		return errno;
	return error;
}

static bool changes_pump(struct stream *s)
{
	struct walk *walk = s->state;
	size_t room = s->credit < CHUNK ? s->credit : CHUNK;
	struct tlv_writer w;
	const uint8_t *begin;
	int error = 0;

	if (room < ENTRY_ROOM + 5 || !out_open_for_data())
		return false;
	w = out_tlv(room);
	if (w.overflow)
		return false;
	begin = w.at;
	for (int i = 0; i < STEPS && !error && walk->depth && w.end - w.at >= ENTRY_ROOM + 5; i++)
		error = step(walk, &w);
	s->credit -= (uint32_t)(w.at - begin);
	if (w.at > begin)
		out_commit_tlv(F_DATA, s->id, &w);
	if (error || !walk->depth)
		stream_finish(s, error, "changes");
	return true;
}

static void changes_open(struct stream *s, const struct request *r)
{
	struct walk *walk = s->state;
	int error = EOPNOTSUPP;

	(void)r;
	if (upper_root >= 0 && lower_root >= 0)
		error = descend(walk, openat(upper_root, ".", DIRECTORY), openat(lower_root, ".", DIRECTORY), 0, false);
	if (error)
		stream_finish(s, error, "changes");
}

static void changes_close(struct stream *s)
{
	struct walk *walk = s->state;

	while (walk->depth)
		ascend(walk);
}

const struct stream_ops changes_ops = {
	.name = OP_CHANGES,
	.state_size = sizeof(struct walk),
	.open = changes_open,
	.pump = changes_pump,
	.close = changes_close,
};
