#include "sftp/attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { HAS_SIZE = 1, HAS_OWNER = 2, HAS_MODE = 4, HAS_TIMES = 8 };

#define HAS_EXTENDED 0x80000000u

void sftp_read_attributes(struct sftp_reader *r, struct sftp_attributes *a)
{
	uint32_t flags = sftp_u32(r);

	memset(a, 0, sizeof *a);
	a->has_size = flags & HAS_SIZE;
	a->has_owner = flags & HAS_OWNER;
	a->has_mode = flags & HAS_MODE;
	a->has_times = flags & HAS_TIMES;
	if (a->has_size)
		a->size = sftp_u64(r);
	if (a->has_owner) {
		a->uid = sftp_u32(r);
		a->gid = sftp_u32(r);
	}
	if (a->has_mode)
		a->mode = sftp_u32(r) & 07777;
	if (a->has_times) {
		a->atime = sftp_u32(r);
		a->mtime = sftp_u32(r);
	}
	if (flags & HAS_EXTENDED)
		for (uint32_t pairs = sftp_u32(r), length; pairs > 0 && !r->malformed; pairs--) {
			sftp_bytes(r, &length);
			sftp_bytes(r, &length);
		}
}

void sftp_put_attributes(struct sftp_writer *w, const struct stat *st)
{
	sftp_put_u32(w, HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES);
	sftp_put_u64(w, (uint64_t)st->st_size);
	sftp_put_u32(w, st->st_uid);
	sftp_put_u32(w, st->st_gid);
	sftp_put_u32(w, st->st_mode);
	sftp_put_u32(w, (uint32_t)st->st_atime);
	sftp_put_u32(w, (uint32_t)st->st_mtime);
}

static char letter_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return 'd';
	case S_IFLNK: return 'l';
	case S_IFCHR: return 'c';
	case S_IFBLK: return 'b';
	case S_IFIFO: return 'p';
	case S_IFSOCK: return 's';
	}
	return '-';
}

static void describe_mode(mode_t mode, char text[11])
{
	static const char letters[] = "rwxrwxrwx";

	text[0] = letter_of(mode);
	for (int i = 0; i < 9; i++)
		text[i + 1] = mode & (0400 >> i) ? letters[i] : '-';
	if (mode & S_ISUID)
		text[3] = mode & 0100 ? 's' : 'S';
	if (mode & S_ISGID)
		text[6] = mode & 0010 ? 's' : 'S';
	if (mode & S_ISVTX)
		text[9] = mode & 0001 ? 't' : 'T';
	text[10] = 0;
}

void sftp_put_long_name(struct sftp_writer *w, const char *name, const struct stat *st)
{
	static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	char text[512], mode[11], when[16];
	struct tm tm = { 0 };
	time_t age = time(NULL) - st->st_mtime;

	describe_mode(st->st_mode, mode);
	gmtime_r(&st->st_mtime, &tm);
	if (age >= 0 && age < 182 * 86400)
		snprintf(when, sizeof when, "%02d:%02d", tm.tm_hour, tm.tm_min);
	else
		snprintf(when, sizeof when, "%5d", (tm.tm_year + 1900) % 100000);
	snprintf(text, sizeof text, "%s %3u %-8u %-8u %8llu %s %2d %s %s", mode, (unsigned)st->st_nlink, (unsigned)st->st_uid,
		 (unsigned)st->st_gid, (unsigned long long)st->st_size, months[tm.tm_mon % 12], tm.tm_mday, when, name);
	sftp_put_text(w, text);
}

static int apply_owner(const struct sftp_attributes *a, int fd, const char *path, int flags)
{
	return fd >= 0 ? fchown(fd, a->uid, a->gid) : fchownat(AT_FDCWD, path, a->uid, a->gid, flags);
}

static int apply_mode(const struct sftp_attributes *a, int fd, const char *path, bool follow)
{
	if (fd >= 0)
		return fchmod(fd, a->mode);
	if (follow)
		return chmod(path, a->mode);
	errno = EOPNOTSUPP; /* a link has no mode of its own */
	return -1;
}

static int apply_times(const struct sftp_attributes *a, int fd, const char *path, int flags)
{
	struct timespec times[2] = { { .tv_sec = a->atime }, { .tv_sec = a->mtime } };

	return fd >= 0 ? futimens(fd, times) : utimensat(AT_FDCWD, path, times, flags);
}

int sftp_apply(const struct sftp_attributes *a, int fd, const char *path, bool follow)
{
	int flags = follow ? 0 : AT_SYMLINK_NOFOLLOW, error = 0;

	if (a->has_size && (a->size > INT64_MAX || !(fd >= 0 || follow)))
		return EINVAL;
	if (a->has_size && (fd >= 0 ? ftruncate(fd, (off_t)a->size) : truncate(path, (off_t)a->size)))
		error = errno;
	/* The owner before the mode: a change of owner takes the bits of set-user-ID. */
	if (a->has_owner && apply_owner(a, fd, path, flags))
		error = errno;
	if (a->has_mode && apply_mode(a, fd, path, follow))
		error = errno;
	if (a->has_times && apply_times(a, fd, path, flags))
		error = errno;
	return error;
}
