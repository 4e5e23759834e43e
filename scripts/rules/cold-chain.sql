-- A cold-chain fleet: trucks report their cargo holds; too warm, or a door open on the road, is an
-- incident, and goes with who owns the truck; everything else is kept small.
--
--   tidegate rules try --rule scripts/rules/cold-chain.sql --input scripts/rules/cold-chain.jsonl

CREATE STREAM holds WITH (compression='lz4', timestamp=at) AS
SELECT topic(2) AS truck, h.id AS hold, round(h.temp, 1) AS temp, h.door = 'open' AS open,
       time_to_epoch(time, 'yyyy-MM-dd''T''HH:mm:ssXXX') AS at, speed
FROM 'fleet/+/holds', UNNEST(holds) AS h
WHERE h.temp IS NOT NULL
PARTITION BY truck;

CREATE TABLE devices FROM 'devices.csv' KEY id;

CREATE STREAM incidents WITH (durability='fsync') AS
SELECT truck, hold, at,
       CASE WHEN temp > coalesce(d.temp_max, 8) THEN 'too warm' WHEN temp < 2 THEN 'too cold'
            ELSE 'door open on the road' END AS what,
       temp, speed, d.owner, d.depot
FROM holds LEFT JOIN devices AS d ON d.id = truck
WHERE temp NOT BETWEEN 2 AND coalesce(d.temp_max, 8) OR (open AND speed > 5)
PARTITION BY truck;
