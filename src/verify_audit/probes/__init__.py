"""Reading the host. Each probe reads one thing with one library, and only reads."""
