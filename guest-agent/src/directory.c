/* Entries of directories, and the removal of whole trees. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files.h"
#include "out.h"

enum { ENTRY_MAX = 512, LIST_CHUNK = 16 * 1024, DIRENTS = 8 * 1024, DEPTH_MAX = 4000 };

char type_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return 'd';
	case S_IFLNK: return 'l';
	case S_IFCHR: return 'c';
	case S_IFBLK: return 'b';
	case S_IFIFO: return 'p';
	case S_IFSOCK: return 's';
	default: return '-';
	}
}

void put_entry(struct tlv_writer *w, const char *name, const struct stat *st)
{
	uint8_t bytes[ENTRY_MAX];
	struct tlv_writer entry = { bytes, bytes + sizeof bytes, false };
	char type = type_of(st->st_mode);

	tlv_put(&entry, ENTRY_NAME, name, strnlen(name, 255));
	tlv_put(&entry, ENTRY_TYPE, &type, 1);
	tlv_put_u64(&entry, ENTRY_SIZE, (uint64_t)st->st_size);
	tlv_put_u32(&entry, ENTRY_MODE, st->st_mode);
	tlv_put_u64(&entry, ENTRY_MTIME, (uint64_t)st->st_mtime);
	tlv_put_u32(&entry, ENTRY_UID, st->st_uid);
	tlv_put_u32(&entry, ENTRY_GID, st->st_gid);
	tlv_put(w, RESULT_ENTRY, bytes, (size_t)(entry.at - bytes));
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

void stat_open(struct stream *s, const struct request *r)
{
	struct stat st;
	struct tlv_writer w;

	s->kind = S_JOB;
	if (!r->path || (stat(r->path, &st) && lstat(r->path, &st)))
		return stream_finish(s, r->path ? errno : EINVAL, "stat");
	w = out_tlv(RESULT_ROOM);
	put_entry(&w, base_name(r->path), &st);
	out_commit_tlv(F_RESULT, s->id, &w);
	stream_forget(s);
}

void list_open(struct stream *s, const struct request *r)
{
	s->kind = S_LIST;
	if (r->path)
		s->file = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
	if (s->file < 0)
		stream_finish(s, r->path ? errno : EINVAL, "list");
}

bool dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
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
bool list_pump(struct stream *s)
{
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
	size = syscall(SYS_getdents64, s->file, buffer, sizeof buffer);
	if (size <= 0) {
		stream_finish(s, size < 0 ? errno : 0, "list");
		return true;
	}
	take_entries(s->file, buffer, size, &w);
	s->credit -= (uint32_t)(w.at - begin);
	if (w.at > begin)
		out_commit_tlv(F_DATA, s->id, &w);
	return true;
}

/* Below the parent that was asked for: never through a symbolic link, never into another mount. */
static int open_directory(int parent, const char *name, bool nested)
{
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (nested ? O_NOFOLLOW : 0),
		.resolve = nested ? RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS : 0,
	};

	return (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
}

static int delete_at(int parent, const char *name, int depth);

static int delete_entries(int dir, int depth)
{
	_Alignas(8) char buffer[1024];
	bool again = true;
	long size;

	/* Removing entries moves the rest: read from the start until a whole pass finds nothing. */
	while (again) {
		again = false;
		lseek(dir, 0, SEEK_SET);
		while ((size = syscall(SYS_getdents64, dir, buffer, sizeof buffer)) > 0) {
			for (long at = 0; at < size;) {
				const struct raw_dirent *entry = (const void *)(buffer + at);
				int error = dots(entry->name) ? 0 : delete_at(dir, entry->name, depth + 1);

				if (error)
					return error;
				again |= !dots(entry->name);
				at += entry->length;
			}
		}
		if (size < 0)
			return errno;
	}
	return 0;
}

static int delete_at(int parent, const char *name, int depth)
{
	int dir, error;

	if (!unlinkat(parent, name, 0) || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return errno;
	if (depth > DEPTH_MAX)
		return ELOOP;
	dir = open_directory(parent, name, true);
	if (dir < 0)
		return errno == EXDEV ? EBUSY : errno;
	error = delete_entries(dir, depth);
	close(dir);
	if (!error && unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
		error = errno;
	return error;
}

int delete_tree(const char *path)
{
	char copy[4096];
	size_t length = strlen(path);
	char *slash;
	int parent, error;

	if (length >= sizeof copy)
		return ENAMETOOLONG;
	memcpy(copy, path, length + 1);
	while (length && copy[length - 1] == '/')
		copy[--length] = 0;
	slash = strrchr(copy, '/');
	if (!length || dots(slash ? slash + 1 : copy))
		return EINVAL;
	if (slash)
		*slash = 0;
	parent = open_directory(AT_FDCWD, !slash ? "." : slash == copy ? "/" : copy, false);
	if (parent < 0)
		return errno;
	error = delete_at(parent, slash ? slash + 1 : copy, 0);
	close(parent);
	return error;
}
