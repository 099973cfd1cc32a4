#include "files/entry.h"

#include <errno.h>
#include <string.h>

#include "proto.h"

struct answer {
	struct stat st;
	char name[256];
};

bool dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

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

static void stat_open(struct stream *s, const struct request *r)
{
	struct answer *answer = s->state;

	if (!r->path || (stat(r->path, &answer->st) && lstat(r->path, &answer->st)))
		return stream_finish(s, r->path ? errno : EINVAL, "stat");
	strncpy(answer->name, base_name(r->path), sizeof answer->name - 1);
	stream_finish(s, 0, NULL);
}

static void stat_result(struct stream *s, struct tlv_writer *w)
{
	const struct answer *answer = s->state;

	put_entry(w, answer->name, &answer->st);
}

const struct stream_ops stat_ops = {
	.name = OP_STAT,
	.state_size = sizeof(struct answer),
	.open = stat_open,
	.result = stat_result,
};
