"""States on a PostgreSQL server: each commit is a row. Needs psycopg, and is imported only for URLs."""
