"""Values of SQL expressions, as SQLite has them.

Comes in, on standard input: one JSON object a line, {"columns": {name: value, ...}, "sql": text}.
Goes out: one line for each, the value as JSON, or {"error": text}.
"""

import json
import sqlite3
import sys

connection = sqlite3.connect(":memory:")
connection.execute("PRAGMA case_sensitive_like = ON")
for line in sys.stdin:
    row = json.loads(line)
    names = list(row["columns"])
    columns = ", ".join(f"? AS {name}" for name in names)
    values = [row["columns"][name] for name in names]
    try:
        sql = f"SELECT {row['sql']} FROM (SELECT {columns})"
        value = connection.execute(sql, values).fetchone()[0]
        print(json.dumps(value))
    except sqlite3.Error as error:
        print(json.dumps({"error": str(error)}))
