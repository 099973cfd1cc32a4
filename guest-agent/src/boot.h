/* From the kernel's first process to a running system. */
#ifndef BOOT_H
#define BOOT_H

#include <stdbool.h>

/* Mounts, modules, root, network: returns in the final root. Ends the machine when there is no way on. */
void boot(void);
/* The virtio port with this name, non-blocking; waits for the kernel to announce it. */
int open_port(const char *name);
_Noreturn void power_off(const char *why);

/* Device events; opened before what causes them is set off, so that none is missed. */
void uevents_open(void);
/* Returns when something changed; false after `timeout_ms` without anything. */
bool uevents_wait(int timeout_ms);
void uevents_close(void);

void mount_early(void);
void load_modules(void);
/* Mounts the root and moves into it. */
void switch_root(void);
void mount_late(void);
/* The value of `name` on the kernel's command line, "" when it is not there. */
const char *command_line(const char *name);
void network_up(void);

#endif
