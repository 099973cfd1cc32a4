/* The names of this machine in the files of its root: /etc/hostname, /etc/machine-id and one line of /etc/hosts. */
#ifndef NAMES_H
#define NAMES_H

#include <stddef.h>

/* Before the first name: gives the machine one and /etc/hosts a line for it. */
void names_prepare(void);
/* The name from now on. 0 or an errno of the kernel's; the files are changed as far as possible. */
int set_hostname(const char *name, size_t length);
void set_machine_id(const char *id, size_t length);

#endif
