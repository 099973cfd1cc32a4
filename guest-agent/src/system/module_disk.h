/* The disk with all of the kernel's modules. */
#ifndef MODULE_DISK_H
#define MODULE_DISK_H

#include <stdbool.h>

enum { DEVICE_SIZE = 16 };

/* The device of the disk with this name, which is its serial number: its place differs between machines. */
bool find_disk(const char *name, char device[DEVICE_SIZE]);
/* Mounts it, if the machine has one, and makes the device nodes that load a module when they are opened. */
void mount_module_disk(void);

#endif
