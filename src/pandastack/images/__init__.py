"""Images: kernels, initramfs archives, root disks and the recipes they are made from. Nothing here boots a
machine."""
