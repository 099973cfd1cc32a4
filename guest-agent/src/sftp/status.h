/* The answers of SFTP that every kind of request can have. */
#ifndef SFTP_STATUS_H
#define SFTP_STATUS_H

#include "sftp/packet.h"

enum { SFTP_STATUS = 101, SFTP_NAME = 104 };
enum { SFTP_OK = 0, SFTP_EOF = 1, SFTP_NO_SUCH_FILE = 2, SFTP_DENIED = 3, SFTP_FAILURE = 4, SFTP_BAD = 5, SFTP_UNSUPPORTED = 8 };
enum { SFTP_DATA_MAX = SFTP_PACKET_MAX - 1024 }; /* bytes in one read or write */

void sftp_put_status(struct sftp_writer *writer, uint32_t id, uint32_t status, const char *message);
/* The status for an errno; 0 is success. */
void sftp_put_error(struct sftp_writer *writer, uint32_t id, int error);
/* The answer of one path. */
void sftp_put_name(struct sftp_writer *writer, uint32_t id, const char *path);

#endif
