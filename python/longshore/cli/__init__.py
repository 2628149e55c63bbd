"""The command line: one command a file, what it says apart from what it does.

`main` finds the command and turns every failure into a message and an exit code; `lazy` loads a command's file when it is called, not before; `options`
and `session` hold what commands share (which repository, which key, how to speak); `running` watches a job; `output` is the only place that prints;
`reference` writes docs/reference/cli.md.

Promises: standard output holds results alone, everything else goes to standard error; with `--json` standard output is one JSON object a line and nothing
else; no failure shows a traceback unless it was asked for; exit codes are those of :mod:`longshore.errors`.

It knows the rooms below only through :mod:`longshore.datapath` and the two composition roots, and decides nothing about data: what a command does is asked of
the engine.
"""
