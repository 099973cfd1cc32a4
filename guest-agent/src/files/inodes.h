/* The inode tables of a mounted ext4, read from its device: what every file's inode says, without a look at any file. */
#ifndef INODES_H
#define INODES_H

#include <stdint.h>

enum { INODE_SIZE = 256 };

struct inodes {
	int device;
	uint32_t count, groups, per_group;
};

/* Called with the number of an inode and its bytes on the disk. */
typedef void inode_visitor(void *context, uint32_t number, const uint8_t *inode);

/* Reads the superblock from an open device. 0 or an errno: EOPNOTSUPP for a file system that ours are not like. */
int inodes_open(struct inodes *inodes, int device);
/* Visits the inodes of one group that have ever been used. 0 or an errno. */
int inodes_scan(const struct inodes *inodes, uint32_t group, inode_visitor *visit, void *context);

#endif
