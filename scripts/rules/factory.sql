-- A factory: raw JSON of machines is checked and routed; what counts parts is kept as state; metrics of
-- Sparkplug B become a row each.
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

-- Births name the metrics, later messages have their aliases only. What no birth has named is left out
-- until its node is born again.
CREATE STREAM sparkplug WITH (format='sparkplug_b', timestamp=at) AS
SELECT topic(4) AS node, topic(5) AS device, m.name AS metric, m.value, m.timestamp AS at
FROM 'spBv1.0/plant/DBIRTH/+/+', 'spBv1.0/plant/DDATA/+/+', UNNEST(metrics) AS m
WHERE m.name IS NOT NULL
PARTITION BY device || '/' || metric;

CREATE STREAM temperatures AS
SELECT device, value AS celsius FROM sparkplug WHERE metric = 'temperature' AND value > 72;
