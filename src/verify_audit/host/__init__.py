"""What is known of the host: facts, and how each came to be known. Pure: nothing here reads anything."""
