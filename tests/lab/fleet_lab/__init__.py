"""Real hosts for tests: OpenSSH servers on this machine that can be killed, frozen, filled and broken."""
