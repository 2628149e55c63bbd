"""The picture of the Grafana dashboard behind `make dashboard`: its own expressions, asked of a real Prometheus that scraped a server and an agent at work.

Rooms: `board` reads the dashboard's JSON; `prometheus` runs one and asks it; `work` gives agent and server something to do; `units` writes values as
Grafana does; `draw` makes the picture. Nothing here knows Grafana itself: the picture is no screenshot.

Arrows: `__main__ → work | draw | prometheus → units | board`.
"""
