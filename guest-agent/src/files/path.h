/* What several operations on files need of paths. */
#ifndef PATH_H
#define PATH_H

#include <sys/types.h>

/* Makes the directories above `path`; 0 or an errno. */
int make_parents(const char *path);
/* Opens a regular file and nothing else; 0 or an errno. */
int open_regular(const char *path, int flags, mode_t mode, int *fd);

#endif
