"""Real machines for tests: virtual ones of a real libvirt, each with its own kernel, disk, systemd and clock."""
