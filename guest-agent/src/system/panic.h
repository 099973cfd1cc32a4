/* Giving up. */
#ifndef PANIC_H
#define PANIC_H

/* Says why on the console and ends the machine. */
_Noreturn void power_off(const char *why);

#endif
