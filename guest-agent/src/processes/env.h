/* The environment of commands. */
#ifndef ENV_H
#define ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/request.h"
#include "processes/account.h"

/* Replaces the environment that every command gets; E2BIG when it is too long, and then nothing changed. */
int sandbox_env_begin(void);
int sandbox_env_add(const uint8_t *text, size_t length);
void sandbox_env_commit(void);

/*
 * Defaults, then /etc/environment, then the sandbox's own, then the request's: later ones win. Valid
 * until the next call. `account` may be NULL (root as the agent is). NULL when there are too many.
 */
char **env_build(const struct request *request, const struct account *account);
const char *env_get(char *const *env, const char *name);

#endif
