"""The commands of `python -m bench`, one file each: arguments and exit codes. May import every room."""
