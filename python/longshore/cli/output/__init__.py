"""Everything that commands say: text for people, JSON lines for programs, and progress while a job runs.

`sink` is what commands hold; `progress` measures and chooses a display, `bar` draws it on a terminal; `tables` aligns; `human` words sizes, times and names;
`fields` gives the JSON fields that docs/reference/json.md lists; `words` gives the summaries.

Promises: nothing that comes from a volume or a repository (names, tags, sources, error texts) can move the cursor or colour a terminal. It does not know
which command is running, nor the data path's classes except by attribute.
"""
