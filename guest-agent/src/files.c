#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "out.h"

enum { REGULAR_FLAGS = O_CLOEXEC | O_NONBLOCK | O_NOCTTY };

static int not_regular(mode_t mode)
{
	return S_ISREG(mode) ? 0 : S_ISDIR(mode) ? EISDIR : EINVAL;
}

/* Looked at before the open too: opening a device can already do something. */
int open_regular(const char *path, int flags, mode_t mode, int *fd)
{
	struct stat st;
	int error = 0;

	if (!stat(path, &st))
		error = not_regular(st.st_mode);
	else if (!(flags & O_CREAT) || errno != ENOENT)
		error = errno;
	if (error)
		return error;
	*fd = open(path, flags | REGULAR_FLAGS, mode);
	if (*fd < 0)
		return errno;
	return fstat(*fd, &st) ? errno : not_regular(st.st_mode);
}

void read_open(struct stream *s, const struct request *r)
{
	int error = r->path ? open_regular(r->path, O_RDONLY, 0, &s->file) : EINVAL;

	s->kind = S_READ;
	s->remaining = r->has_length ? r->length : UINT64_MAX;
	if (!error && r->offset && lseek(s->file, (off_t)r->offset, SEEK_SET) < 0)
		error = errno;
	if (error)
		stream_finish(s, error, "read");
}

int make_parents(const char *path)
{
	char part[4096];
	size_t length = strlen(path);

	if (length >= sizeof part)
		return ENAMETOOLONG;
	memcpy(part, path, length + 1);
	for (size_t i = 1; i < length; i++) {
		if (part[i] != '/')
			continue;
		part[i] = 0;
		if (mkdir(part, 0755) && errno != EEXIST && errno != EROFS && errno != EACCES)
			return errno;
		part[i] = '/';
	}
	return 0;
}

static bool pump_read(struct stream *s)
{
	size_t chunk = DATA_CHUNK;
	uint8_t *payload;
	ssize_t n;

	if (!s->credit || !out_open_for_data())
		return false;
	if (chunk > s->credit)
		chunk = s->credit;
	if (chunk > s->remaining)
		chunk = (size_t)s->remaining;
	payload = out_payload(chunk);
	if (!payload)
		return false;
	n = chunk ? read(s->file, payload, chunk) : 0;
	if (n <= 0) {
		stream_finish(s, n < 0 ? errno : 0, "read");
		return true;
	}
	s->credit -= (uint32_t)n;
	s->remaining -= (uint64_t)n;
	s->bytes += (uint64_t)n;
	out_commit(F_DATA, s->id, (size_t)n);
	return true;
}

bool list_pump(struct stream *stream);

bool files_pump(struct stream *s)
{
	if (s->finished)
		return false;
	if (s->kind == S_READ)
		return pump_read(s);
	if (s->kind == S_CHANGES)
		return changes_pump(s);
	return s->kind == S_LIST && list_pump(s);
}

void mkdir_open(struct stream *s, const struct request *r)
{
	struct stat st;
	int error = r->path ? make_parents(r->path) : EINVAL;

	s->kind = S_JOB;
	if (!error && mkdir(r->path, r->has_mode ? (mode_t)r->mode & 07777 : 0755)) {
		error = errno;
		if (error == EEXIST && !stat(r->path, &st) && S_ISDIR(st.st_mode))
			error = 0;
	}
	stream_finish(s, error, "mkdir");
}

/* fork, not vfork: the child works with our code. It exits with an errno. */
static void start_job(struct stream *s, int (*work)(const char *), const char *path, const char *what)
{
	pid_t pid = fork();

	s->kind = S_JOB;
	s->what = what;
	if (pid == 0) {
		syscall(SYS_close_range, 3, ~0u, 0); /* or a pipe would seem open for as long as we work */
		_exit(work(path));
	}
	if (pid < 0)
		stream_finish(s, errno, what);
	s->pid = pid;
}

void job_exited(struct stream *s, int status)
{
	stream_finish(s, WIFEXITED(status) ? WEXITSTATUS(status) : s->cancelled ? ECANCELED : EIO, s->what);
}

void delete_open(struct stream *s, const struct request *r)
{
	const char *path = r->path;

	s->kind = S_JOB;
	if (!path)
		return stream_finish(s, EINVAL, "delete");
	/* Most are one file, for which no child is needed. */
	if (!unlink(path) || errno == ENOENT)
		return stream_finish(s, 0, NULL);
	if (errno == EISDIR || errno == EPERM)
		return start_job(s, delete_tree, path, "delete");
	stream_finish(s, errno, "delete");
}

static int sync_all(const char *path)
{
	(void)path;
	sync();
	return 0;
}

void sync_open(struct stream *s)
{
	start_job(s, sync_all, NULL, "sync");
}
