"""Say what the report's page shows of a run, from its records alone: sentences, tables, charts, cases.

Values only, as texts; how they look is said in `templates/`, where everything is escaped.
Imports `bench.report` and its studies.
"""
