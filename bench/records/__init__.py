"""Keep what was measured: columns, CSV files, run folders, the environment. Imports no other room."""
