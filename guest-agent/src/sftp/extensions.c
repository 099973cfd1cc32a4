#include "sftp/extensions.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "processes/account.h"
#include "sftp/attributes.h"
#include "sftp/handles.h"
#include "sftp/status.h"

enum { EXTENDED_REPLY = 201, PROTOCOL_VERSION = 3, READ_ONLY = 1, NO_SET_UID = 2 };

static char path[PATH_MAX], other[PATH_MAX];

static void two_paths(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, int (*act)(const char *, const char *))
{
	sftp_text(r, path, sizeof path);
	sftp_text(r, other, sizeof other);
	sftp_put_error(w, id, r->malformed ? EBADMSG : act(path, other) ? errno : 0);
}

static void posix_rename(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	(void)home;
	two_paths(r, w, id, rename);
}

static void hard_link(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	(void)home;
	two_paths(r, w, id, link);
}

static void sync_file(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	struct sftp_handle *h = sftp_handle_find(r);

	(void)home;
	sftp_put_error(w, id, !h || h->directory ? EBADF : fsync(h->fd) ? errno : 0);
}

static void put_limits(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	(void)r, (void)home;
	sftp_put_u8(w, EXTENDED_REPLY);
	sftp_put_u32(w, id);
	sftp_put_u64(w, SFTP_PACKET_MAX);
	sftp_put_u64(w, SFTP_DATA_MAX);
	sftp_put_u64(w, SFTP_DATA_MAX);
	sftp_put_u64(w, SFTP_HANDLES);
}

static void set_link_attributes(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	struct sftp_attributes attributes;

	(void)home;
	sftp_text(r, path, sizeof path);
	sftp_read_attributes(r, &attributes);
	sftp_put_error(w, id, r->malformed ? EBADMSG : sftp_apply(&attributes, -1, path, false));
}

static void put_file_system(struct sftp_writer *w, uint32_t id, const struct statvfs *fs)
{
	uint64_t flags = (fs->f_flag & ST_RDONLY ? READ_ONLY : 0) | (fs->f_flag & ST_NOSUID ? NO_SET_UID : 0);
	uint64_t values[] = { fs->f_bsize, fs->f_frsize, fs->f_blocks, fs->f_bfree, fs->f_bavail, fs->f_files,
			      fs->f_ffree, fs->f_favail, fs->f_fsid, flags, fs->f_namemax };

	sftp_put_u8(w, EXTENDED_REPLY);
	sftp_put_u32(w, id);
	for (size_t i = 0; i < sizeof values / sizeof *values; i++)
		sftp_put_u64(w, values[i]);
}

static void file_system_of_path(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	struct statvfs fs;

	(void)home;
	sftp_text(r, path, sizeof path);
	if (r->malformed || statvfs(path, &fs))
		return sftp_put_error(w, id, r->malformed ? EBADMSG : errno);
	put_file_system(w, id, &fs);
}

static void file_system_of_handle(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	struct sftp_handle *h = sftp_handle_find(r);
	struct statvfs fs;

	(void)home;
	if (!h || fstatvfs(h->directory ? dirfd(h->directory) : h->fd, &fs))
		return sftp_put_error(w, id, h ? errno : EBADF);
	put_file_system(w, id, &fs);
}

/* "~" and "~/…" are below the user's home, "~NAME" below another's. */
static void expand_path(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	static struct account account;
	static char expanded[PATH_MAX];
	size_t length;

	sftp_text(r, path, sizeof path);
	if (r->malformed)
		return sftp_put_error(w, id, EBADMSG);
	if (*path != '~')
		return realpath(path, expanded) ? sftp_put_name(w, id, expanded) : sftp_put_error(w, id, errno);
	length = strcspn(path, "/");
	snprintf(other, sizeof other, "%.*s", (int)length - 1, path + 1);
	if (*other && !account_find(other, &account))
		return sftp_put_error(w, id, ENOENT);
	if (snprintf(expanded, sizeof expanded, "%s%s", *other ? account.home : home, path + length) >= (int)sizeof expanded)
		return sftp_put_error(w, id, ENAMETOOLONG);
	if (realpath(expanded, other))
		return sftp_put_name(w, id, other);
	sftp_put_name(w, id, expanded);
}

static const struct extension {
	const char *name, *version;
	void (*answer)(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home);
} extensions[] = {
	{ "posix-rename@openssh.com", "1", posix_rename },
	{ "hardlink@openssh.com", "1", hard_link },
	{ "fsync@openssh.com", "1", sync_file },
	{ "limits@openssh.com", "1", put_limits },
	{ "lsetstat@openssh.com", "1", set_link_attributes },
	{ "statvfs@openssh.com", "2", file_system_of_path },
	{ "fstatvfs@openssh.com", "2", file_system_of_handle },
	{ "expand-path@openssh.com", "1", expand_path },
};

void sftp_put_extensions(struct sftp_writer *w)
{
	sftp_put_u32(w, PROTOCOL_VERSION);
	for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
		sftp_put_text(w, extensions[i].name);
		sftp_put_text(w, extensions[i].version);
	}
}

void sftp_extended(struct sftp_reader *r, struct sftp_writer *w, uint32_t id, const char *home)
{
	char name[64];

	sftp_text(r, name, sizeof name);
	for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++)
		if (!strcmp(extensions[i].name, name))
			return extensions[i].answer(r, w, id, home);
	sftp_put_status(w, id, SFTP_UNSUPPORTED, "Operation unsupported");
}
