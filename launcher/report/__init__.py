"""The retention report: results of teachers and students as a table, JSON, Markdown and one HTML page."""
