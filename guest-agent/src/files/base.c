#include "files/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files/entry.h"
#include "proto.h"
#include "system/module_disk.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif

enum {
	DEEPEST = 256,
	DIRENTS = 32 * 1024,
	FAST_LINK = 60, /* a target shorter than this is in the inode */
	AREA = 1 << 20,
};

/* Memory that grows; what is in it is reached by offsets. */
struct area {
	uint8_t *bytes;
	size_t used, size;
};

struct extra {
	uint32_t inode, parent;
};

static int root = -1, device = -1;
static uint32_t inode_count;
static struct area inodes, entries, text, extras;

/* Room for `size` more bytes, or NULL. */
static void *grow(struct area *area, size_t size)
{
	void *bytes = area->bytes;
	size_t larger = area->size;

	while (larger - area->used < size)
		larger = larger ? 2 * larger : AREA;
	if (larger != area->size) {
		bytes = area->bytes
		            ? mremap(area->bytes, area->size, larger, MREMAP_MAYMOVE)
		            : mmap(NULL, larger, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (bytes == MAP_FAILED)
			return NULL;
		area->bytes = bytes;
		area->size = larger;
	}
	area->used += size;
	return area->bytes + area->used - size;
}

static void forget(struct area *area)
{
	if (area->bytes)
		munmap(area->bytes, area->size);
	*area = (struct area){ NULL, 0, 0 };
}

bool base_files(const char *directory, const char *path)
{
	root = (int)syscall(SYS_open_tree, AT_FDCWD, directory, OPEN_TREE_CLONE | O_CLOEXEC);
	device = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	return root >= 0 && device >= 0;
}

int base_root(void)
{
	return root < 0 ? -1 : openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

uint32_t base_inode_count(void)
{
	return inode_count;
}

uint32_t base_entry_count(void)
{
	return (uint32_t)(entries.used / sizeof(struct base_entry));
}

static struct base_inode *inode_at(uint32_t number)
{
	return (struct base_inode *)(void *)inodes.bytes + number;
}

const struct base_inode *base_inode(uint32_t number)
{
	return inode_at(number);
}

const struct base_entry *base_entry(uint32_t index)
{
	return (const struct base_entry *)(void *)entries.bytes + index;
}

const char *base_text(uint32_t place)
{
	return (const char *)text.bytes + place;
}

static int by_name(const void *one, const void *other)
{
	const struct base_entry *a = one, *b = other;

	return strcmp(base_text(a->name), base_text(b->name));
}

const struct base_entry *base_find(uint32_t number, const char *name)
{
	const struct base_inode *directory = base_inode(number);
	uint32_t low = directory->first, high = low + directory->entries;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strcmp(name, base_text(base_entry(middle)->name));

		if (!order)
			return base_entry(middle);
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

uint32_t base_other_parent(uint32_t number, uint32_t n)
{
	const struct extra *extra = (const void *)extras.bytes;

	for (size_t i = 0; i < extras.used / sizeof *extra; i++)
		if (extra[i].inode == number && !n--)
			return extra[i].parent;
	return 0;
}

uint64_t base_hash(const uint8_t *inode)
{
	uint64_t words[INODE_SIZE / 8], hash = 0;
	uint8_t *bytes = (void *)words;

	if (!inode[26] && !inode[27]) /* no name has it */
		return 0;
	memcpy(words, inode, INODE_SIZE);
	memset(bytes + 8, 0, 4); /* the time of access, */
	memset(bytes + 140, 0, 4);
	memset(bytes + 124, 0, 2); /* and checksums */
	memset(bytes + 130, 0, 2);
	for (size_t i = 0; i < INODE_SIZE / 8; i++) {
		hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15u;
		hash ^= hash >> 29;
	}
	return hash | 1;
}

static uint32_t half(const uint8_t *p)
{
	return (uint32_t)(p[0] | p[1] << 8);
}

/* A time in ns from its two fields: seconds, and ns above two more bits of seconds. */
static int64_t time_of(const uint8_t *inode, size_t seconds, size_t extra)
{
	uint32_t more = half(inode + 128) >= extra + 4 - 128 ? get_u32(inode + extra) : 0;

	return ((int64_t)(int32_t)get_u32(inode + seconds) + ((int64_t)(more & 3) << 32)) * 1000000000 + (more >> 2);
}

/* A text of its own; 0 when there is no room. */
static uint32_t put_text(const char *bytes, size_t length)
{
	char *place = grow(&text, length + 1);

	if (!place)
		return 0;
	memcpy(place, bytes, length);
	place[length] = 0;
	return (uint32_t)(place - (char *)text.bytes);
}

static void take_inode(void *failed, uint32_t number, const uint8_t *bytes)
{
	struct base_inode *inode = inode_at(number);

	inode->hash = base_hash(bytes);
	if (!inode->hash)
		return;
	inode->mode = half(bytes);
	inode->uid = half(bytes + 2) | half(bytes + 120) << 16;
	inode->gid = half(bytes + 24) | half(bytes + 122) << 16;
	inode->size = get_u32(bytes + 4) | (uint64_t)get_u32(bytes + 108) << 32;
	inode->mtime = time_of(bytes, 16, 136);
	inode->ctime = time_of(bytes, 12, 132);
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode))
		inode->first = get_u32(bytes + 40) ? get_u32(bytes + 40) : get_u32(bytes + 44);
	if (S_ISLNK(inode->mode) && inode->size < FAST_LINK) {
		inode->first = put_text((const char *)bytes + 40, inode->size);
		if (!inode->first)
			*(bool *)failed = true;
	}
}

static int take_entry(int dir, uint32_t parent, const struct raw_dirent *found)
{
	struct base_inode *inode;
	struct base_entry *entry;
	uint32_t name;

	if (dots(found->name) || found->ino >= inode_count)
		return 0;
	name = put_text(found->name, strlen(found->name));
	entry = grow(&entries, sizeof *entry);
	if (!name || !entry)
		return ENOMEM;
	*entry = (struct base_entry){ (uint32_t)found->ino, name };
	inode = inode_at(entry->inode);
	if (inode->parent) {
		struct extra *extra = grow(&extras, sizeof *extra);

		if (!extra)
			return ENOMEM;
		*extra = (struct extra){ entry->inode, parent };
		inode->entries = 1;
	} else {
		inode->parent = parent;
		if (S_ISLNK(inode->mode) && inode->size >= FAST_LINK) {
			char target[PATH_MAX];
			ssize_t length = readlinkat(dir, found->name, target, sizeof target);

			if (length > 0 && !(inode->first = put_text(target, (size_t)length)))
				return ENOMEM;
		}
	}
	return 0;
}

static int take_entries(int dir, uint32_t number)
{
	static _Alignas(8) char buffer[DIRENTS];
	uint32_t first = base_entry_count();
	long size;
	int error = 0;

	while ((size = syscall(SYS_getdents64, dir, buffer, sizeof buffer)) > 0)
		for (long at = 0; at < size && !error; at += ((const struct raw_dirent *)(const void *)(buffer + at))->length)
			error = take_entry(dir, number, (const void *)(buffer + at));
	if (error || size < 0)
		return error ? error : errno;
	inode_at(number)->first = first;
	inode_at(number)->entries = base_entry_count() - first;
	qsort(entries.bytes + first * sizeof(struct base_entry), base_entry_count() - first, sizeof(struct base_entry),
	      by_name);
	return 0;
}

/* Everything below an open directory, which is closed. */
static int take_tree(int dir, uint32_t number, int depth)
{
	uint32_t first, last;
	int error = dir < 0 ? errno : depth == DEEPEST ? ELOOP : take_entries(dir, number);

	first = inode_at(number)->first;
	last = first + inode_at(number)->entries;
	for (uint32_t i = first; i < last && !error; i++) {
		struct base_entry entry = *base_entry(i);

		if (S_ISDIR(inode_at(entry.inode)->mode))
			error = take_tree(openat(dir, base_text(entry.name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
			                  entry.inode, depth + 1);
	}
	if (dir >= 0)
		close(dir);
	return error;
}

/* 0 or an errno: then nothing is remembered. `top` is the open root of the file system on `disk`; it is closed. */
static int remember_files(int top, int disk)
{
	struct inodes now;
	bool failed = false;
	int error = top < 0 ? EOPNOTSUPP : inodes_open(&now, disk);

	forget(&inodes);
	forget(&entries);
	forget(&text);
	forget(&extras);
	inode_count = error ? 0 : now.count + 1;
	if (!error && (!grow(&inodes, (size_t)inode_count * sizeof(struct base_inode)) || !grow(&text, 1)))
		error = ENOMEM;
	for (uint32_t group = 0; !error && group < now.groups; group++)
		error = inodes_scan(&now, group, take_inode, &failed);
	if (!error && failed)
		error = ENOMEM;
	if (!error)
		error = take_tree(top, ROOT_INODE, 0);
	else if (top >= 0)
		close(top);
	if (error)
		inode_count = 0;
	return error;
}

/* The inodes have no size yet for what has not been written: it is, first. */
static int remember(void)
{
	int top = base_root();

	if (top >= 0 && syncfs(top)) {
		close(top);
		top = -1;
	}
	return remember_files(top, device);
}

/* A file system that is mounted nowhere, for reading; -1 when that fails. */
static int open_file_system(const char *path)
{
	int context = (int)syscall(SYS_fsopen, "ext4", FSOPEN_CLOEXEC), found = -1;

	if (context >= 0 && !syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", path, 0) &&
	    !syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, "ro", NULL, 0) &&
	    !syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		found = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME);
	if (context >= 0)
		close(context);
	return found;
}

/*
 * What the template's files were was in the memory that a machine has lost which booted from its disks. It has the
 * template's disk beside its own, to read it from when it is asked for.
 */
static int remember_template(void)
{
	char path[DEVICE_SIZE];
	int mounted, disk, error;

	if (!find_disk("base", path))
		return EOPNOTSUPP;
	mounted = open_file_system(path);
	disk = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	error = mounted < 0 || disk < 0
	            ? EOPNOTSUPP
	            : remember_files(openat(mounted, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), disk);
	if (disk >= 0)
		close(disk);
	if (mounted >= 0)
		close(mounted);
	return error;
}

int base_inodes(struct inodes *now)
{
	int error = inode_count ? 0 : remember_template();

	return error ? error : inodes_open(now, device);
}

static void remember_open(struct stream *s, const struct request *r)
{
	(void)r;
	stream_finish(s, remember(), "remember");
}

const struct stream_ops remember_ops = {
	.name = OP_REMEMBER,
	.open = remember_open,
};
