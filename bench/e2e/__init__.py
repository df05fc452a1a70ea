"""Real servers, one load, every balancer: what is left of the tail when servers misbehave?

Entry point: `compare.main`, run by `python bench/e2e`. Read `scenarios.py` first: it is data. `server.py` is the child
process that misbehaves and `fleet.py` holds five of them; `balancers.py` opens a channel of each kind, `envoy.py` the
one with Envoy in between; `load.py` sends the calls. `figures.py` makes numbers of what came back, `tables.py` and
`picture.py` show them.
"""
