"""HTTP/1.1 framing without I/O: bytes in, heads and bodies out. Strict on what comes in, minimal on what goes out."""
