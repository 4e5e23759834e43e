-- A factory: raw JSON of machines is checked and routed; what counts parts is kept as state.
--
--   tidegate rules try --rule scripts/rules/factory.sql --input scripts/rules/factory.jsonl

CREATE STREAM machines AS
SELECT *, topic(3) AS line, upper(status) AS status, mode IN ('auto', 'semi') AS running
FROM 'factory/+/+/machine'
WHERE status IS NOT NULL;

CREATE STREAM parts WITH (cleanup_policy='compact', key=line || '/' || machine) AS
SELECT line, machine, good, bad, bad * 100 / (good + bad) AS bad_percent
FROM machines AS m
WHERE m.good + m.bad > 0;

CREATE STREAM vibration WITH (on_error='null') AS
SELECT machine, bitand(flags, 4) <> 0 AS alarm, sqrt(x * x + y * y) AS amplitude
FROM 'factory/+/+/vibration';
