/*
 * What differs from the template: a walk over those directories that have changed or have something changed below them.
 *
 * The agent remembers the template's files (base.c). Every change of a file, of its name or of a directory changes its
 * inode, so a comparison of the inode tables with the remembered hashes tells which are concerned, and what had them in
 * the template tells where. A directory that has not changed itself has the names that it had: only those that lead to a
 * change are visited. One that has changed is read. One that was not at this path is read whole. What lies on other file
 * systems (/run, /dev, volumes) is not in the list.
 *
 * Each entry says what it is, and what the template has under the same path. Names that a directory has no more are
 * listed as deleted: a reader of the list need not know the template.
 */
#include "files/changes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "channel/out.h"
#include "files/base.h"
#include "files/entry.h"
#include "proto.h"

enum {
	NODE_ROOM = PATH_MAX + 256, /* one side of an entry: its numbers, and a link's target */
	ENTRY_ROOM = PATH_MAX + 2 * NODE_ROOM + 64,
	CHUNK = 32 * 1024,
	STEPS = 64, /* directories, or groups of inodes, in one turn of the loop */
	SOME = 64, /* names of the template in one step */
	DEPTH = 128,
	DIRENTS = 2048,
	DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
};

enum phase {
	READ, /* every name that the directory has */
	KNOWN, /* the names that it had in the template: it has not changed */
	GONE, /* those that it has no more */
};

struct level {
	int dir;
	uint32_t base; /* the template's directory of this path; 0: there is none */
	uint32_t next; /* entry of that directory */
	uint16_t length; /* of the path of this directory */
	enum phase phase;
};

struct walk {
	struct inodes now;
	uint32_t group; /* of inodes, to be compared next */
	uint8_t *changed, *above; /* bits by inode: it has changed, the template has a changed one below it */
	uint8_t *seen; /* bits by entry of the template: it is still there */
	char path[PATH_MAX];
	size_t depth;
	struct level levels[DEPTH];
};

static bool has(const uint8_t *bits, uint32_t index)
{
	return bits[index / 8] & 1u << index % 8;
}

static void set(uint8_t *bits, uint32_t index)
{
	bits[index / 8] |= (uint8_t)(1u << index % 8);
}

static bool is_changed(const struct walk *walk, uint64_t inode)
{
	return inode >= base_inode_count() || has(walk->changed, (uint32_t)inode);
}

/* Whether there is anything to say about an inode, or below it. */
static bool concerned(const struct walk *walk, uint64_t inode)
{
	return is_changed(walk, inode) || has(walk->above, (uint32_t)inode);
}

static void mark_above(struct walk *walk, uint32_t directory)
{
	for (; directory && !has(walk->above, directory); directory = base_inode(directory)->parent)
		set(walk->above, directory);
}

static void compare_inode(void *context, uint32_t number, const uint8_t *bytes)
{
	struct walk *walk = context;
	const struct base_inode *then;
	uint32_t parent;

	if (number >= base_inode_count() || base_hash(bytes) == (then = base_inode(number))->hash)
		return;
	set(walk->changed, number);
	mark_above(walk, then->parent);
	if (!S_ISDIR(then->mode) && then->entries)
		for (uint32_t n = 0; (parent = base_other_parent(number, n)); n++)
			mark_above(walk, parent);
}

static uint64_t nanoseconds(struct timespec time)
{
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void put_link(struct tlv_writer *w, int dir, const char *name)
{
	char target[PATH_MAX];
	ssize_t length = readlinkat(dir, name, target, sizeof target);

	if (length > 0)
		tlv_put(w, ENTRY_TARGET, target, (size_t)length);
}

static void put_node(struct tlv_writer *w, const struct stat *st)
{
	char type = type_of(st->st_mode);

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
}

static void put_base(struct tlv_writer *w, uint32_t number)
{
	const struct base_inode *inode = base_inode(number);
	struct stat st = {
		.st_mode = inode->mode, .st_uid = inode->uid, .st_gid = inode->gid, .st_ino = number,
		.st_size = (off_t)inode->size, .st_rdev = S_ISLNK(inode->mode) ? 0 : inode->first,
		.st_mtim = { inode->mtime / 1000000000, inode->mtime % 1000000000 },
		.st_ctim = { inode->ctime / 1000000000, inode->ctime % 1000000000 },
	};

	put_node(w, &st);
	if (S_ISLNK(inode->mode) && inode->first)
		tlv_put_text(w, ENTRY_TARGET, base_text(inode->first));
}

/* The entry of `name` in the directory on top, whose path has been completed; NULL: there is none on that side. */
static void put_change(struct tlv_writer *w, const struct walk *walk, const char *name, const struct stat *now,
                       const struct base_entry *then)
{
	static uint8_t bytes[ENTRY_ROOM], below[NODE_ROOM];
	struct tlv_writer entry = { bytes, bytes + sizeof bytes, false };
	struct tlv_writer node = { below, below + sizeof below, false };

	tlv_put_text(&entry, ENTRY_NAME, walk->path);
	if (now)
		put_node(&entry, now);
	else
		tlv_put(&entry, ENTRY_TYPE, "x", 1);
	if (now && S_ISLNK(now->st_mode))
		put_link(&entry, walk->levels[walk->depth - 1].dir, name);
	if (then) {
		put_base(&node, then->inode);
		tlv_put(&entry, ENTRY_BELOW, below, (size_t)(node.at - below));
	}
	tlv_put(w, RESULT_ENTRY, bytes, (size_t)(entry.at - bytes));
}

/* Takes over the descriptor. */
static int descend(struct walk *walk, int dir, uint32_t base, size_t length, enum phase phase)
{
	if (dir < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : errno; /* deleted or replaced just now */
	if (walk->depth == DEPTH) {
		close(dir);
		return ELOOP;
	}
	walk->levels[walk->depth++] =
	    (struct level){ dir, base, base ? base_inode(base)->first : 0, (uint16_t)length, phase };
	return 0;
}

static void ascend(struct walk *walk)
{
	close(walk->levels[--walk->depth].dir);
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

/* A name that the directory on top has now, and what the template has under it. */
static int visit(struct walk *walk, const char *name, const struct base_entry *then, struct tlv_writer *w)
{
	const struct level *top = &walk->levels[walk->depth - 1];
	size_t length = complete_path(walk, top, name);
	uint32_t below;
	struct stat now;
	bool same;

	if (!length)
		return ENAMETOOLONG;
	if (fstatat(top->dir, name, &now, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : errno; /* deleted just now */
	same = then && then->inode == now.st_ino;
	if (!same || is_changed(walk, now.st_ino))
		put_change(w, walk, name, &now, then);
	if (!S_ISDIR(now.st_mode) || (same && !concerned(walk, now.st_ino)))
		return 0;
	below = then && S_ISDIR(base_inode(then->inode)->mode) ? then->inode : 0;
	return descend(walk, openat(top->dir, name, DIRECTORY), below, length,
	               same && !is_changed(walk, now.st_ino) ? KNOWN : READ);
}

/* A name of the template that the directory on top did not have when it was read. */
static int miss(struct walk *walk, const struct base_entry *then, struct tlv_writer *w)
{
	const struct level *top = &walk->levels[walk->depth - 1];
	const char *name = base_text(then->name);
	struct stat now;

	if (!complete_path(walk, top, name))
		return ENAMETOOLONG;
	if (fstatat(top->dir, name, &now, AT_SYMLINK_NOFOLLOW) && errno == ENOENT)
		put_change(w, walk, name, NULL, then);
	return 0;
}

/* Names of the template's directory, from where the last step left off. 0 or an errno. */
static int step_base(struct walk *walk, struct tlv_writer *w)
{
	size_t depth = walk->depth;
	struct level *top = &walk->levels[depth - 1];
	uint32_t end = top->base ? base_inode(top->base)->first + base_inode(top->base)->entries : 0;
	int error = 0;

	for (int i = 0; i < SOME && top->next < end && !error && walk->depth == depth;) {
		const struct base_entry *then = base_entry(top->next);
		bool told = top->phase == KNOWN ? concerned(walk, then->inode) : !has(walk->seen, top->next);

		if (told && w->end - w->at < ENTRY_ROOM + 5)
			return 0;
		top->next++;
		if (!told)
			continue;
		i++;
		error = top->phase == KNOWN ? visit(walk, base_text(then->name), then, w) : miss(walk, then, w);
	}
	if (!error && walk->depth == depth && top->next >= end)
		ascend(walk);
	return error;
}

/* Names that the directory on top has, from where the last step left off. 0 or an errno. */
static int step_read(struct walk *walk, struct tlv_writer *w)
{
	static _Alignas(8) char buffer[DIRENTS];
	size_t depth = walk->depth;
	struct level *top = &walk->levels[depth - 1];
	int error = 0;
	off_t here = lseek(top->dir, 0, SEEK_CUR);
	long size = syscall(SYS_getdents64, top->dir, buffer, sizeof buffer);

	if (size < 0 && errno != ENOENT)
		return errno;
	if (size <= 0) /* all was read, or the directory was deleted just now */
		top->phase = GONE;
	for (long at = 0; at < size && !error && walk->depth == depth;) {
		const struct raw_dirent *entry = (const void *)(buffer + at);
		const struct base_entry *then = top->base ? base_find(top->base, entry->name) : NULL;
		bool told = !dots(entry->name) && !(then && then->inode == entry->ino && !concerned(walk, entry->ino));

		if (told && w->end - w->at < ENTRY_ROOM + 5)
			break;
		if (then)
			set(walk->seen, (uint32_t)(then - base_entry(0)));
		if (told)
			error = visit(walk, entry->name, then, w);
		here = entry->next;
		at += entry->length;
	}
	if (size > 0 && lseek(top->dir, here, SEEK_SET) < 0)
		return errno;
	return error;
}

/* Part of the work, until a directory is left, another is entered or there is no room. 0 or an errno. */
static int step(struct walk *walk, struct tlv_writer *w)
{
	if (walk->group < walk->now.groups) {
		int error = inodes_scan(&walk->now, walk->group++, compare_inode, walk);

		if (!error && walk->group == walk->now.groups)
			error = descend(walk, base_root(), ROOT_INODE, 0, is_changed(walk, ROOT_INODE) ? READ : KNOWN);
		return error;
	}
	return walk->levels[walk->depth - 1].phase == READ ? step_read(walk, w) : step_base(walk, w);
}

static bool done(const struct walk *walk)
{
	return walk->group == walk->now.groups && !walk->depth;
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
	for (int i = 0; i < STEPS && !error && !done(walk) && w.end - w.at >= ENTRY_ROOM + 5; i++)
		error = step(walk, &w);
	s->credit -= (uint32_t)(w.at - begin);
	if (w.at > begin)
		out_commit_tlv(F_DATA, s->id, &w);
	if (error || done(walk))
		stream_finish(s, error, "changes");
	return true;
}

static void changes_open(struct stream *s, const struct request *r)
{
	struct walk *walk = s->state;
	int error = base_inodes(&walk->now);

	(void)r;
	if (!error) {
		walk->changed = calloc(1, base_inode_count() / 8 + 1);
		walk->above = calloc(1, base_inode_count() / 8 + 1);
		walk->seen = calloc(1, base_entry_count() / 8 + 1);
		if (!walk->changed || !walk->above || !walk->seen)
			error = ENOMEM;
	}
	if (error)
		stream_finish(s, error, "changes");
}

static void changes_close(struct stream *s)
{
	struct walk *walk = s->state;

	while (walk->depth)
		ascend(walk);
	free(walk->changed);
	free(walk->above);
	free(walk->seen);
}

const struct stream_ops changes_ops = {
	.name = OP_CHANGES,
	.state_size = sizeof(struct walk),
	.open = changes_open,
	.pump = changes_pump,
	.close = changes_close,
};
