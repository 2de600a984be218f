"""One rule, one file: which events it judges, what it claims of them, and what speaks for and against."""
