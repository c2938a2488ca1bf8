"""Check a cell against the cell contract: load it, ask it, report. Imports no other room."""
