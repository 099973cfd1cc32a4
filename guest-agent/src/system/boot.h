/* From the kernel's first process to a running system. */
#ifndef BOOT_H
#define BOOT_H

/* Mounts, modules, root, network: returns in the final root. Ends the machine when it cannot. */
void boot(void);

#endif
