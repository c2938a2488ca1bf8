"""Run the chosen cases and tasks and write a record of each. Imports the rooms up to processes."""
