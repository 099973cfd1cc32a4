/* The kernel modules that the initramfs brings. */
#ifndef MODULES_H
#define MODULES_H

void load_modules(void);

#endif
