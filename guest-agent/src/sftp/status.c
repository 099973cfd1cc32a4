#include "sftp/status.h"

#include <errno.h>
#include <string.h>

static uint32_t status_of(int error)
{
	switch (error) {
	case 0: return SFTP_OK;
	case ENOENT: case ENOTDIR: case ELOOP: return SFTP_NO_SUCH_FILE;
	case EPERM: case EACCES: case EFAULT: return SFTP_DENIED;
	case EBADMSG: case ENAMETOOLONG: case EINVAL: return SFTP_BAD;
	case ENOSYS: case EOPNOTSUPP: return SFTP_UNSUPPORTED;
	}
	return SFTP_FAILURE;
}

void sftp_put_status(struct sftp_writer *w, uint32_t id, uint32_t status, const char *message)
{
	sftp_put_u8(w, SFTP_STATUS);
	sftp_put_u32(w, id);
	sftp_put_u32(w, status);
	sftp_put_text(w, message);
	sftp_put_text(w, "en");
}

void sftp_put_error(struct sftp_writer *w, uint32_t id, int error)
{
	sftp_put_status(w, id, status_of(error), error ? strerror(error) : "Success");
}

void sftp_put_name(struct sftp_writer *w, uint32_t id, const char *path)
{
	sftp_put_u8(w, SFTP_NAME);
	sftp_put_u32(w, id);
	sftp_put_u32(w, 1);
	sftp_put_text(w, path);
	sftp_put_text(w, path);
	sftp_put_u32(w, 0); /* no attributes */
}
