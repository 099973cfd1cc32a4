/*
 * The layout is that of Linux, Documentation/filesystems/ext4. The kernel keeps the inode tables up to date in the page
 * cache of the device, and a direct read writes that back first: what is read here is what the kernel knows, and it takes
 * no memory to read it.
 */
#include "files/inodes.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#include "channel/tlv.h"

enum {
	BLOCK = 4096,
	BLOCKS = 32, /* read at once */
	SUPERBLOCK = 1024,
	MAGIC = 0xEF53,
	META_BG = 0x10, /* features with another table of groups */
	WIDE = 0x80,
	DESCRIPTOR = 32,
	UNUSED = 1, /* flag of a group: its table was never written */
};

static _Alignas(BLOCK) uint8_t buffer[BLOCKS * BLOCK];

static uint16_t get_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

/* Blocks from the device into the buffer. */
static int read_blocks(int device, uint64_t block, size_t blocks)
{
	ssize_t size = pread(device, buffer, blocks * BLOCK, (off_t)(block * BLOCK));

	if (size < 0)
		return errno;
	return (size_t)size == blocks * BLOCK ? 0 : EIO;
}

int inodes_open(struct inodes *inodes, int device)
{
	const uint8_t *super = buffer + SUPERBLOCK;
	int error = read_blocks(device, 0, 1);

	if (error)
		return error;
	inodes->device = device;
	inodes->count = get_u32(super);
	inodes->per_group = get_u32(super + 40);
	if (get_u16(super + 56) != MAGIC || get_u32(super + 24) != 2 || get_u16(super + 88) != INODE_SIZE ||
	    get_u32(super + 96) & (META_BG | WIDE) || !inodes->per_group || inodes->per_group % (BLOCK / INODE_SIZE))
		return EOPNOTSUPP;
	inodes->groups = inodes->count / inodes->per_group;
	return 0;
}

int inodes_scan(const struct inodes *inodes, uint32_t group, inode_visitor *visit, void *context)
{
	const uint8_t *descriptor = buffer + group % (BLOCK / DESCRIPTOR) * DESCRIPTOR;
	uint32_t first = group * inodes->per_group + 1, used, table;
	int error = read_blocks(inodes->device, 1 + group / (BLOCK / DESCRIPTOR), 1);

	if (error)
		return error;
	table = get_u32(descriptor + 8);
	used = inodes->per_group - get_u16(descriptor + 28);
	if (get_u16(descriptor + 18) & UNUSED || used > inodes->per_group)
		return 0;
	for (uint32_t done = 0; done < used;) {
		uint32_t blocks = (used - done + BLOCK / INODE_SIZE - 1) / (BLOCK / INODE_SIZE);

		blocks = blocks < BLOCKS ? blocks : BLOCKS;
		error = read_blocks(inodes->device, table + done / (BLOCK / INODE_SIZE), blocks);
		if (error)
			return error;
		for (uint32_t i = 0; i < blocks * (BLOCK / INODE_SIZE) && done < used; i++, done++)
			visit(context, first + done, buffer + i * INODE_SIZE);
	}
	return 0;
}
