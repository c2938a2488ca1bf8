"""Answer the question of each sweep: its tables and its charts, one file a question."""
