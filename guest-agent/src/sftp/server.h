/*
 * The server of SFTP version 3 (draft-ietf-secsh-filexfer-02), with the extensions that OpenSSH's clients use (OpenSSH's
 * PROTOCOL, section 4). It runs as the user whose files they are: the kernel decides what is allowed.
 */
#ifndef SFTP_SERVER_H
#define SFTP_SERVER_H

#include "processes/account.h"

/* Serves the socket until its end, or until the client sends what is no request. */
void sftp_run(int fd, const struct account *account);

#endif
