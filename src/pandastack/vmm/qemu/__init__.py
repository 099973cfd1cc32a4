"""The ``qemu`` driver: QEMU's ``microvm`` machine, with KVM where it works and software emulation everywhere."""
