"""What is claimed of an event, what speaks for and against it, and the verdict that follows."""
