"""The data plane: clients' connections, requests on their way, connections to hosts."""
