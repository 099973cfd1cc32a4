/* The extensions of OpenSSH (its PROTOCOL, section 4) that this server has. */
#ifndef SFTP_EXTENSIONS_H
#define SFTP_EXTENSIONS_H

#include "sftp/packet.h"

/* The version of the protocol and the names of the extensions. */
void sftp_put_extensions(struct sftp_writer *writer);
/* Carries out a request of an extension, and answers it. */
void sftp_extended(struct sftp_reader *request, struct sftp_writer *answer, uint32_t id, const char *home);

#endif
