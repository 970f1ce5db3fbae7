"""What one balancer process is made from and hands on: options, sockets, state."""
