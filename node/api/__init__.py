"""The developer API over HTTP: `docs/reference/api.md` says what it promises.

`server` takes requests from the network, `dispatch` finds who answers, `conventions` holds what
all operations share, and one module a resource does the work: `databases`, `routes`, `jobs`,
`batch`, `cluster`. `views` says how things look in JSON, `problems` how refusals do.
"""
