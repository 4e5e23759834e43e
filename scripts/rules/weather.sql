-- A weather network: stations of several makes, made one; gales and frost to those who wait for them.
--
--   tidegate rules try --rule scripts/rules/weather.sql --input scripts/rules/weather.jsonl

CREATE STREAM weather AS
SELECT coalesce(station, clientid()) AS station,
       coalesce(temp_c, (temp_f - 32) / 1.8) AS temp,
       coalesce(wind_ms, wind_kmh / 3.6) AS wind,
       received_at() AS at
FROM 'weather/+/now', 'stations/#'
PARTITION BY station;

CREATE STREAM warnings WITH (headers=(kind)) AS
SELECT station, 'gale' AS kind, wind AS value FROM weather WHERE wind >= 17.2;

CREATE STREAM frost WITH (on_error='drop') AS
SELECT station, temp FROM weather WHERE temp < 0;
