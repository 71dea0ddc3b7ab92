/* The machine's end: ACPI power off and sleep on PIIX4 (pc) and ICH9 (q35), reset by port 0xCF9. */
#include "guest.h"

#define PCI_ADDRESS 0xCF8
#define PCI_DATA 0xCFC
#define PIIX4_ID 0x71138086u
#define PIIX4_DEVICE (1 << 11 | 3 << 8)
#define ICH9_ID 0x29188086u
#define ICH9_DEVICE (31 << 11)
#define PM_BASE 0x600u
#define PM_BASE_REGISTER 0x40
#define PIIX4_PM_ENABLE 0x80
#define ICH9_ACPI_CONTROL 0x44
#define PM1_CONTROL (PM_BASE + 4)
#define SLEEP_ENABLE (1u << 13)
#define SLEEP_TYPE_OFF (0u << 10)
#define SLEEP_TYPE_S3 (1u << 10)

static bool has_power_management;

extern void sleep_until_woken(u32 port, u32 value);

static u32 pci_read(u32 device, u32 offset)
{
	outl(PCI_ADDRESS, 0x80000000u | device | offset);
	return inl(PCI_DATA);
}

static void pci_write(u32 device, u32 offset, u32 value)
{
	outl(PCI_ADDRESS, 0x80000000u | device | offset);
	outl(PCI_DATA, value);
}

void power_initialise(void)
{
	has_power_management = true;
	if (pci_read(PIIX4_DEVICE, 0) == PIIX4_ID) {
		pci_write(PIIX4_DEVICE, PM_BASE_REGISTER, PM_BASE | 1);
		pci_write(PIIX4_DEVICE, PIIX4_PM_ENABLE, pci_read(PIIX4_DEVICE, PIIX4_PM_ENABLE) | 1);
	} else if (pci_read(ICH9_DEVICE, 0) == ICH9_ID) {
		pci_write(ICH9_DEVICE, PM_BASE_REGISTER, PM_BASE | 1);
		pci_write(ICH9_DEVICE, ICH9_ACPI_CONTROL, pci_read(ICH9_DEVICE, ICH9_ACPI_CONTROL) | 0x80);
	} else {
		has_power_management = false;
	}
}

static bool leave(const char *event)
{
	if (!has_power_management) {
		say_event("no_power_management", clock_now());
		return false;
	}
	say_event(event, clock_now());
	serial_drain();
	return true;
}

void power_off(void)
{
	if (!leave("poweroff"))
		return;
	outw(PM1_CONTROL, SLEEP_TYPE_OFF | SLEEP_ENABLE);
	stop_for_ever();
}

void power_reset(void)
{
	say_event("reset", clock_now());
	serial_drain();
	outb(0xCF9, 2);
	outb(0xCF9, 6);
	stop_for_ever();
}

void power_suspend(void)
{
	if (!leave("suspend"))
		return;
	clock_suspend();
	sleep_until_woken(PM1_CONTROL, SLEEP_TYPE_S3 | SLEEP_ENABLE);
	serial_initialise();
	clock_resume();
	power_initialise();
	say_event("wake", clock_now());
}
