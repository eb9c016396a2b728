"""etcd's own test files as judges of our Raft core.

The files are those of etcd's raft library (Apache-2.0). They are read where they lie and never
copied. Each is a script: a command, what it is given, and what etcd answers.

    python -m tests.etcd [DIR]

runs every file below DIR through our core and prints what differs. DIR may hold the files in any
folders; which kind one is, its first command says:

* `quorum`: what majorities commit and whom they elect (`majorities`);
* `confchange`: from one membership to the next (`memberships`);
* `interaction`: whole groups, down to every message and every Ready (`interaction`).

What is compared is the whole text of every answer, in its order. Ignored are only the lines that
etcd's logger prints (`INFO ...`, `DEBUG ...` and so on): they are prose for people. Not shown in
these texts, and so not compared, are the context of a message, which etcd does not print, and
`Message.acked`, which etcd does not have.
"""
