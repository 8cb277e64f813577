"""What the audit stage looks for, one kind of fault a file."""
