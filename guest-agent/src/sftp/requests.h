/* What an SFTP client asks for: each request has one answer. */
#ifndef SFTP_REQUESTS_H
#define SFTP_REQUESTS_H

#include <stdbool.h>

#include "sftp/packet.h"

/* Carries out a request, without its length, and writes the answer. False when it was no request at all. */
bool sftp_request(struct sftp_reader *request, struct sftp_writer *answer, const char *home);

#endif
