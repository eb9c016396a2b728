"""The developer API over HTTP: `docs/reference/api.md` says what it promises.

`server` takes requests from the network, `dispatch` finds who answers, `conventions` holds what all
operations share, `lookups` what a path names, `paging` lists, and one module a resource does the
work: `databases`, `routes`, `jobs`, `batch`, `cluster` and so on. `views` says how things look in
JSON, `problems` how refusals do.

Each operation is described where it is handled, with `operations`. From that and from the types
`openapi` makes the document for programs and `reference` the page for people; `documents` serves
both.
"""
