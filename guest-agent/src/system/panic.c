#include "system/panic.h"

#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

_Noreturn void power_off(const char *why)
{
	(void)!write(2, "agent: ", 7);
	(void)!write(2, why, strlen(why));
	(void)!write(2, "\n", 1);
	sync();
	reboot(RB_AUTOBOOT); /* the VMM ends instead of rebooting */
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
