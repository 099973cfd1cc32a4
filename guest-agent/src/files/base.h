/* The files that the template has: every name and every inode, remembered in memory when the template is made. */
#ifndef BASE_H
#define BASE_H

#include <stdbool.h>
#include <stdint.h>

#include "files/inodes.h"
#include "streams/stream.h"

enum { ROOT_INODE = 2 };

struct base_inode {
	uint64_t hash; /* of its bytes on the disk; 0: not in use */
	uint64_t size;
	int64_t mtime, ctime; /* in ns */
	uint32_t mode, uid, gid;
	uint32_t parent; /* a directory that has it; 0: none */
	uint32_t first; /* directory: its first entry; link: where its target is; device: its number */
	uint32_t entries; /* directory: how many; else whether more directories have it */
};

struct base_entry {
	uint32_t inode, name;
};

/* The file system that changes are listed of: a directory and its device. Its root need not be that of the process. */
bool base_files(const char *root, const char *device);
/* An open directory: the file system's root without what is mounted over parts of it; -1 when there is none. */
int base_root(void);
/* The inodes as they are now. 0 or an errno: EOPNOTSUPP when nothing was remembered. */
int base_inodes(struct inodes *now);

uint32_t base_inode_count(void);
uint32_t base_entry_count(void);
/* The inode as it was, not in use if it had no name; `number` is less than base_inode_count(). */
const struct base_inode *base_inode(uint32_t number);
const struct base_entry *base_entry(uint32_t index);
const char *base_text(uint32_t place);
/* The entry of this name in what was the directory `number`, or NULL. */
const struct base_entry *base_find(uint32_t number, const char *name);
/* The n-th further directory that has the inode, or 0. */
uint32_t base_other_parent(uint32_t number, uint32_t n);
/* A hash of what an inode says besides its time of access; 0 when it is not in use. */
uint64_t base_hash(const uint8_t *inode);

extern const struct stream_ops remember_ops;

#endif
